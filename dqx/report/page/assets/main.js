"use strict";
// Puts the sections together, and in a page that is watched asks for what is new.

const SECTIONS = [answer, search, curves, distribution, profiles, improvements, fields, thresholds, episodes, panels, seeds, records, methods];

function render() {
  const main = document.getElementById("main");
  const focused = document.activeElement && document.activeElement.id;
  const read = scrollY; // what is read stays where it is
  watched.disconnect();
  main.replaceChildren();
  header();
  const some = DATA.groups.length && group().cases.length;
  for (const part of SECTIONS) if (some || part === records || part === methods) part(main);
  if (!some) main.prepend(element("p", { class: "warn" }, nothing()));
  contents(main);
  document.getElementById("foot").textContent = `Made by dqx ${DATA.dqx} at ${DATA.made}. Everything shown is inside this page, which asks no network.`;
  scrollTo(0, read);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function nothing() {
  const lost = DATA.groups.some((one) => !one.cases.length && DATA.studies.some((study) => study.finished));
  return lost ? "No run has a finite score: there is nothing to draw." : "No run is finished yet: there is nothing to draw.";
}

function contents(main) {
  const items = [...main.querySelectorAll("section")].map((part) => element("li", {}, element("a", { href: `#${part.id}` }, part.querySelector("h2").textContent)));
  document.getElementById("contents").replaceChildren(element("ul", {}, items));
}

render();
document.documentElement.dataset.drawn = "1";
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);

// --- `dqx watch`: the page is served beside its data.

const WATCH = document.querySelector("meta[name=dqx-watch]");

async function renew(mark) {
  let next = mark;
  try {
    next = (await renewed(mark)) || mark;
  } finally {
    setTimeout(renew, 1000 * Number(WATCH.content), next);
  }
}

// Draws what is new, and gives its mark; nothing where nothing is.
async function renewed(mark) {
  let next = null, data = null;
  try {
    const answer = await fetch("data.json", { cache: "no-store", headers: mark ? { "If-None-Match": mark } : {} });
    if (answer.status === 304) return null;
    if (answer.status !== 200) {
      said(`The page cannot be renewed: ${await answer.text()}`);
      return null;
    }
    next = answer.headers.get("ETag");
    data = await answer.json();
  } catch {
    said("The page is no longer renewed: dqx watch has ended.");
    return null;
  }
  const before = DATA.mark;
  DATA = data;
  if (DATA.mark === before) header();
  else render();
  return next;
}

function said(text) {
  const place = document.getElementById("renewal") || element("p", { id: "renewal", class: "warn", role: "status" });
  place.textContent = text;
  if (!place.isConnected) document.getElementById("head").append(place);
}

if (WATCH) renew(WATCH.dataset.mark);
