"""What a traced program consists of, its inner programs included."""

import jax


def equations(jaxpr):
    """All equations of a jaxpr, those of inner jaxprs included.

    A choice between platforms is none that a program makes: its branches alone are told.
    """
    for equation in jaxpr.eqns:
        if equation.params.get("branches_platforms") is None:
            yield equation
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(item, "jaxpr", item)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def traced(function, *arguments):
    """The equations of a function, traced for these arguments or their shapes."""
    return list(equations(jax.make_jaxpr(function)(*arguments).jaxpr))


def is_leaf(equation):
    """Whether an equation holds no inner program."""
    params = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr"))
    return not any(hasattr(getattr(p, "jaxpr", p), "eqns") for p in params)


def outputs(found, primitive):
    """The shapes of all that equations of one primitive give."""
    return [v.aval.shape for e in found if e.primitive.name == primitive for v in e.outvars]
