"""The status line: how far a run is, and what was refused, for eyes and for screen readers."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets


class Status(anywidget.AnyWidget):
    """Progress in a live region that lasts; readers hear of a run under way every five seconds at most.

    Attributes:
        share: how much is done, 0 … 1.
        text: where the run is.
        fault: why something was refused or failed; empty if nothing was.
        views: how often the page shows it, reported by the page.
    """

    _css = Path(__file__).with_name("tuner.css")
    _esm = """
    const shown = new WeakMap(); // views of each model, counted anew by a page that loads
    function count(model, change) {
      shown.set(model, (shown.get(model) || 0) + change);
      model.set("views", shown.get(model));
      model.save_changes();
    }
    function render({ model, el }) {
      el.innerHTML = `<div class="dl-status"><progress max="1" aria-label="sampling"></progress>
        <span class="dl-text"></span><span class="dl-heard" role="status"></span>
        <b class="dl-fault" role="alert"></b></div>`;
      const part = (name) => el.querySelector(name);
      let spoken = 0;
      const paint = () => {
        const [share, text] = [model.get("share"), model.get("text")];
        part("progress").value = share;
        part(".dl-text").textContent = text;
        part(".dl-fault").textContent = model.get("fault");
        if ((share > 0 && share < 1) && Date.now() - spoken < 5000) return;
        part(".dl-heard").textContent = text;
        spoken = Date.now();
      };
      ["share", "text", "fault"].forEach((name) => model.on(`change:${name}`, paint));
      paint();
      count(model, 1);
      return () => {
        ["share", "text", "fault"].forEach((name) => model.off(`change:${name}`, paint));
        count(model, -1);
      };
    }
    export default { render };
    """
    share = traitlets.Float(0.0).tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
    fault = traitlets.Unicode().tag(sync=True)
    views = traitlets.Int(0).tag(sync=True)
