"use strict";
(() => {
  const specs = document.getElementById("specs").textContent;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const look = () => {
    const text = colour("--soft"), ink = colour("--ink"), line = colour("--line"), grid = colour("--grid");
    const font = getComputedStyle(document.body).fontFamily, narrow = innerWidth < 600;
    const longest = narrow ? Math.round(0.42 * innerWidth) : 400;
    return {
      background: "transparent", font,
      view: { stroke: null },
      axis: { labelColor: text, titleColor: text, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal",
              gridColor: grid, domainColor: line, tickColor: line, labelLimit: longest },
      legend: { labelColor: ink, titleColor: text, labelFontSize: 12, labelLimit: 220, symbolSize: 90 },
    };
  };

  // Where there is no room for whole names, what tells them apart must not be what is cut.
  const shorten = (part) => {
    for (const [key, value] of Object.entries(part)) {
      if (key === "values" || value === null || typeof value !== "object") continue;
      if (value.field === "label" && value.axis) value.axis.labelExpr = "replace(datum.label, 'features replaced by ', '')";
      shorten(value);
    }
  };

  const draw = () => {
    const drawn = JSON.parse(specs.replaceAll({{ ink|tojson }}, colour("--chart-ink")));
    const config = look();
    for (const place of document.querySelectorAll("[data-chart]")) {
      const spec = drawn[place.dataset.chart];
      delete spec.config;
      if (innerWidth < 600) shorten(spec);
      vegaEmbed(place, spec, { mode: "vega-lite", renderer: "svg", actions: false, config, theme: dark.matches ? "dark" : undefined,
                               tooltip: { theme: dark.matches ? "dark" : "light" } })
        .catch((error) => { place.textContent = "This figure cannot be drawn: " + error.message; place.classList.add("chart-error"); });
    }
  };

  const sortable = (table) => {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          const order = isNaN(x) || isNaN(y) ? String(x).localeCompare(String(y)) : x - y;
          return down ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  };

  const scrolling = (box) => {
    const hint = document.createElement("p");
    hint.className = "hint";
    hint.textContent = "More columns to the right: scroll the table →";
    box.before(hint);
    const look = () => {
      const beyond = box.scrollWidth - box.clientWidth, more = beyond - box.scrollLeft > 2;
      box.classList.toggle("more", more);
      hint.hidden = beyond <= 2;
      hint.style.visibility = more ? "visible" : "hidden";  // its place stays, so that nothing jumps
    };
    box.addEventListener("scroll", look, { passive: true });
    new ResizeObserver(look).observe(box);
    look();
  };

  draw();
  document.querySelectorAll(".scroll").forEach(scrolling);
  dark.addEventListener("change", draw);
  document.querySelectorAll("table.sortable").forEach(sortable);
})();
