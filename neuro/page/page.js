"use strict";
(() => {
  // Tabs: without this script all parts stand one below the other.
  const bar = document.getElementById("tabs");
  const parts = [...document.querySelectorAll("main > section")];
  const show = (index, focus) => {
    parts.forEach((part, k) => {
      part.hidden = k !== index;
      const tab = bar.children[k];
      tab.setAttribute("aria-selected", k === index);
      tab.tabIndex = k === index ? 0 : -1;
    });
    if (focus) bar.children[index].focus();
    bar.children[index].scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  parts.forEach((part, k) => {
    const tab = document.createElement("button");
    tab.id = "tab" + k; part.id = "part" + k;
    tab.setAttribute("role", "tab"); tab.setAttribute("aria-controls", part.id);
    part.setAttribute("role", "tabpanel"); part.setAttribute("aria-labelledby", tab.id);
    tab.textContent = part.dataset.tab;
    tab.addEventListener("click", () => show(k));
    bar.append(tab);
  });
  bar.addEventListener("keydown", (event) => {
    const now = [...bar.children].findIndex((tab) => tab.getAttribute("aria-selected") === "true");
    const to = { ArrowRight: (now + 1) % parts.length, ArrowLeft: (now + parts.length - 1) % parts.length,
                 Home: 0, End: parts.length - 1 }[event.key];
    if (to !== undefined) { event.preventDefault(); show(to, true); }
  });
  bar.hidden = false;
  show(0);

  // One hint for every mark of a chart, by pointer and by keyboard.
  const hint = document.createElement("div");
  hint.id = "hint"; hint.setAttribute("role", "status"); hint.hidden = true;
  document.body.append(hint);
  const tell = (text, x, y) => {
    hint.textContent = text; hint.hidden = !text;
    hint.style.left = Math.max(4, Math.min(x + 12, innerWidth - hint.offsetWidth - 8)) + "px";
    hint.style.top = Math.max(4, Math.min(y + 14, innerHeight - hint.offsetHeight - 8)) + "px";
  };
  document.querySelectorAll(".chart .mark, .chart .small").forEach((mark) => {
    const title = mark.querySelector("title");
    const text = title.textContent;
    mark.setAttribute("aria-label", text); mark.setAttribute("role", "img");
    title.remove(); // the browser's own hint would come on top, later
    mark.addEventListener("pointermove", (event) => tell(text, event.clientX, event.clientY));
    mark.addEventListener("pointerleave", () => tell(""));
    mark.addEventListener("focus", () => { const box = mark.getBoundingClientRect(); tell(text, box.left, box.bottom); });
    mark.addEventListener("blur", () => tell(""));
  });

  // Spikes: one time window for all layers of a recording.
  const si = (seconds) => {
    const unit = [[1, "s"], [1e-3, "ms"], [1e-6, "\u00b5s"]].find(([size]) => Math.abs(seconds) >= size) || [1e-6, "\u00b5s"];
    return seconds === 0 ? "0 s" : +(seconds / unit[0]).toPrecision(4) + " " + unit[1];
  };
  document.querySelectorAll(".rasters").forEach((group) => {
    const panels = [...group.querySelectorAll(".raster")];
    const steps = Number(panels[0].dataset.steps), dt = Number(panels[0].dataset.dt);
    const [from, where, to] = group.querySelector(".axis").children;
    const spikes = panels.map((panel) => new Set(panel.querySelector("path").getAttribute("d").match(/M\d+ \d+/g) || []));
    let begin = 0, width = steps;
    const draw = () => {
      width = Math.min(Math.max(width, Math.min(8, steps)), steps);
      begin = Math.min(Math.max(begin, 0), steps - width);
      panels.forEach((panel) => panel.setAttribute("viewBox", `${begin} -0.5 ${width} ${panel.dataset.size}`));
      from.textContent = si(begin * dt); to.textContent = si((begin + width) * dt);
    };
    const zoom = (factor, at) => { const fixed = begin + at * width; width *= factor; width = Math.min(Math.max(width, Math.min(8, steps)), steps); begin = fixed - at * width; draw(); };
    const actions = { in: () => zoom(0.5, 0.5), out: () => zoom(2, 0.5), left: () => { begin -= width / 4; draw(); },
                      right: () => { begin += width / 4; draw(); }, all: () => { begin = 0; width = steps; draw(); } };
    const buttons = group.previousElementSibling;
    buttons.hidden = false;
    buttons.querySelectorAll("button").forEach((button) => button.addEventListener("click", actions[button.dataset.do]));
    panels.forEach((panel, k) => {
      const size = Number(panel.dataset.size);
      const point = (event) => { const box = panel.getBoundingClientRect(); return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]; };
      panel.addEventListener("wheel", (event) => { if (!event.ctrlKey) return; event.preventDefault(); zoom(event.deltaY > 0 ? 1.25 : 0.8, point(event)[0]); }, { passive: false });
      let held = null;
      panel.addEventListener("pointerdown", (event) => { held = [event.clientX, begin]; panel.setPointerCapture(event.pointerId); });
      panel.addEventListener("pointerup", () => { held = null; });
      panel.addEventListener("pointermove", (event) => {
        if (held) { begin = held[1] - (event.clientX - held[0]) / panel.clientWidth * width; draw(); }
        const [x, y] = point(event);
        const step = Math.floor(begin + x * width), row = Math.min(size - 1, Math.max(0, Math.floor(y * size)));
        const fired = spikes[k].has(`M${step} ${row}`) ? ", a spike" : "";
        where.textContent = `${panel.dataset.name}: neuron ${size - 1 - row}, ${si(step * dt)}${fired}`;
      });
      panel.addEventListener("pointerleave", () => { where.textContent = ""; });
      panel.addEventListener("dblclick", actions.all);
    });
    draw();
  });
})();
