"""Check what a plugin says of itself, and that it reaches other processes whole."""

from __future__ import annotations

import pickle

from ..contract.plugin import KINDS, Plugin
from ..errors import one_line
from .findings import Finding, Findings


def check_declared(plugin: Plugin) -> list[Finding]:
    """Check docstring, descriptions of parameters and revision of ``plugin``, and pickle it."""
    findings = Findings("declares")
    _check_documentation(findings, type(plugin))
    revision = type(plugin).revision
    right = isinstance(revision, int) and revision >= 1
    findings.check("revision", right, str(revision) if right else f"{revision!r}, not an integer of 1 or more")
    _check_pickle(findings, plugin)
    return findings.collected


def _check_documentation(findings: Findings, plugin_class: type[Plugin]) -> None:
    """Check for a docstring of its own and a description of every parameter; note the paper."""
    text = (plugin_class.__doc__ or "").strip()
    inherited = {(base.__doc__ or "").strip() for base in KINDS.values()}
    findings.check("docstring", bool(text) and text not in inherited, text.splitlines()[0] if text else "there is none")
    bare = [name for name, field in plugin_class.model_fields.items() if not field.description]
    described = f"described, all {len(plugin_class.model_fields)}" if plugin_class.model_fields else "it has none"
    findings.check("parameters", not bare, f"{bare[0]} has no description" if bare else described)
    findings.note("paper", plugin_class.paper or "it names none")


def _check_pickle(findings: Findings, plugin: Plugin) -> None:
    """Check that the plugin is the same after it travelled to another process."""
    try:
        same = pickle.loads(pickle.dumps(plugin)) == plugin
    except (Exception, SystemExit) as error:  # whatever a class of somebody else raises
        findings.check("pickle", False, f"cannot be pickled: {one_line(error)}")
        return
    text = "the same after pickling" if same else "another plugin after pickling: workers would compute something else"
    findings.check("pickle", same, text)
