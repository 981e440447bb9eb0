"use strict";
// Tables that sort, and tables whose cells have colours.

function scrolling(table, name, tall = false) {
  const region = { class: tall ? "scroll tall" : "scroll", tabindex: 0, role: "region", "aria-label": name };
  return element("div", region, table);
}

// columns: {name, number, value(row), show(row)}; a click on a head sorts by it, first the best way.
function sortingTable(host, { name, columns, rows, tall }) {
  const body = element("tbody");
  const heads = columns.map((column, i) => {
    const head = element("th", { scope: "col", class: column.css || (column.number ? "number" : null) });
    if (!column.value) head.append(column.name);
    else head.append(element("button", { type: "button", onclick: () => sort(i) }, column.name));
    return head;
  });
  const table = element(
    "table", {}, element("caption", {}, name), element("thead", {}, element("tr", {}, heads)), body,
  );
  function sort(i) {
    const before = heads[i].getAttribute("aria-sort");
    const first = columns[i].number ? "descending" : "ascending";
    const way = before === null ? first : before === "ascending" ? "descending" : "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[i].setAttribute("aria-sort", way);
    fill([...rows].sort((a, b) => ordered(columns[i].value(a), columns[i].value(b), way === "ascending" ? 1 : -1)));
  }
  function fill(inOrder) {
    body.replaceChildren(...inOrder.map((row) => element("tr", {}, columns.map((column, i) => {
      const shown = column.show ? column.show(row) : column.value(row);
      const css = column.css || (column.number ? "number" : i === 0 ? "name" : null);
      return element("td", { class: css }, shown instanceof Node ? shown : String(shown));
    }))));
  }
  fill(rows);
  host.append(scrolling(table, name, tall));
  return table;
}

function ordered(a, b, side) {
  const missing = (value) => value === null || value === undefined || Number.isNaN(value);
  if (missing(a) || missing(b)) return missing(a) - missing(b); // at the end either way
  return side * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
}

// cells[i][j]: {text, small, title, share} or null; share from 0 to 1 gives the colour.
function mapTable(host, { name, corner, rows, columns, cells, colors }) {
  const head = element("tr", {}, element("th", { scope: "col" }, corner), columns.map((one) => element("th", { scope: "col" }, one)));
  const body = rows.map((row, i) => element(
    "tr", {}, element("th", { scope: "row" }, row),
    cells[i].map((cell) => {
      if (!cell) return element("td", {}, "–");
      const made = element("td", { title: cell.title }, cell.text, cell.small ? element("small", {}, cell.small) : null);
      if (cell.share !== null) {
        const parts = mixed(colors, cell.share);
        made.style.background = rgb(parts);
        made.style.color = inkOn(parts);
      }
      return made;
    }),
  ));
  const table = element("table", { class: "map" }, element("caption", {}, name), element("thead", {}, head), element("tbody", {}, body));
  host.append(scrolling(table, name));
}

function factsTable(host, name, rows) {
  const body = rows.map(([key, value]) => element("tr", {}, element("th", { scope: "row" }, key), element("td", {}, value)));
  host.append(scrolling(element("table", { class: "facts" }, element("caption", {}, name), element("tbody", {}, body)), name));
}
