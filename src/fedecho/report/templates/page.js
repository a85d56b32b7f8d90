"use strict";
(function () {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const hidden = new Set(); // numbers of methods
  const chosen = {}; // by figure, the variant
  let figures = {};
  let seeds = true;
  let printing = false;
  const coarse = window.matchMedia("(pointer: coarse)").matches;

  // -- what is packed in the page

  async function unpacked(id) {
    const text = atob(document.getElementById(id).textContent);
    const bytes = Uint8Array.from(text, (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }
  async function start() {
    figures = JSON.parse(await unpacked("figures"));
    const script = document.createElement("script");
    script.textContent = await unpacked("plotly"); // the security policy allows it by its hash
    document.head.append(script);
    await drawAll();
    root.dataset.drawn = "yes";
  }

  // -- colours: "@m0/20" is the variable --m0 of the theme, at 20 % opacity

  let styles = getComputedStyle(root);
  function colour(text) {
    const [name, share] = text.slice(1).split("/");
    const hex = styles.getPropertyValue("--" + name).trim();
    if (!share) return hex;
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${share / 100})`;
  }
  function painted(value) {
    if (typeof value === "string") return /^@\w+(\/\d+)?$/.test(value) ? colour(value) : value;
    if (Array.isArray(value)) return value.map(painted);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, painted(v)]));
    return value;
  }

  // -- figures

  function variant(id) {
    const variants = figures[id];
    return variants[chosen[id] in variants ? chosen[id] : Object.keys(variants)[0]];
  }
  function shownTraces(id) {
    return variant(id).data.filter((t) => !hidden.has(t.meta.method) && (seeds || t.meta.seed === undefined));
  }
  function figure(id, saved) {
    const { layout } = variant(id);
    const made = painted({ data: shownTraces(id), layout });
    const narrow = !saved && document.documentElement.clientWidth < 600;
    const names = narrow || hidden.size ? [] : made.layout.annotations || [];
    const longest = Math.max(0, ...names.map((name) => name.text.length));
    made.layout = {
      ...made.layout,
      annotations: names,
      margin: { ...made.layout.margin, r: made.layout.margin.r + 7 * longest },
      paper_bgcolor: saved ? colour("@card") : "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("@ink") },
      hoverlabel: { bgcolor: colour("@card"), bordercolor: colour("@line"), font: { color: colour("@ink"), size: 13 } },
      dragmode: coarse ? false : "zoom",
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", itemclick: false, itemdoubleclick: false, font: { size: 12.5 } },
    };
    if (saved) {
      made.layout.showlegend = true;
      for (const trace of made.data) if (trace.showlegend === undefined) trace.showlegend = Boolean(trace.meta.main);
      made.layout.title = { text: plain(saved), x: 0.01, xanchor: "left", y: 0.98, yanchor: "top", font: { size: 16 } };
      made.layout.margin = { ...made.layout.margin, l: 16, t: 84, b: 16 };
    }
    return made;
  }
  function plain(text) { // plotly reads tags in its texts
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }
  const config = { displayModeBar: false, responsive: true, displaylogo: false, showTips: false, doubleClick: "reset" };
  function draw(id) {
    const place = document.querySelector(`[data-figure="${id}"] .plot`);
    const made = figure(id);
    if (printing) made.layout.width = 660;
    place.style.minHeight = made.layout.height + "px";
    return Plotly.react(place, made.data, made.layout, { ...config, responsive: !printing });
  }
  function drawEach() {
    return Promise.all(Object.keys(figures).map(draw));
  }
  function drawAll() {
    styles = getComputedStyle(root);
    return drawEach();
  }

  // -- a figure's data

  const entities = { "&lt;": "<", "&gt;": ">", "&amp;": "&", "&#123;": "{" };
  function unescaped(value) {
    return typeof value === "string" ? value.replace(/&(lt|gt|amp|#123);/g, (entity) => entities[entity]) : value;
  }
  function values(trace, key) { // "x", "customdata.2" (a column of rows), "error_x.array" (an array of an object)
    const [name, part] = key.split(".");
    const found = trace[name];
    if (found === undefined) return [];
    if (part === undefined) return found;
    return Array.isArray(found) ? found.map((row) => row[part]) : found[part] || [];
  }
  function rows(id) {
    const { columns } = variant(id);
    const traces = shownTraces(id).filter((trace) => !trace.meta.band && !trace.meta.mark);
    const header = ["series", ...columns.map(([heading]) => heading)];
    const body = traces.flatMap((trace) => {
      const arrays = columns.map(([, key]) => values(trace, key));
      return Array.from({ length: Math.max(...arrays.map((array) => array.length)) }, (_, i) =>
        [trace.name, ...arrays.map((array) => array[i] ?? null)].map(unescaped));
    });
    return { header, body };
  }
  function csv({ header, body }) {
    const cell = (value) => {
      if (typeof value !== "string") return value === null ? "" : String(value);
      const text = /^[=+\-@\t]/.test(value) ? "'" + value : value; // else a spreadsheet would run it
      return /[",\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
    };
    return [header, ...body].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  }
  function download(text, type, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    say(name + " saved");
  }

  // -- controls

  let fade;
  function say(text) {
    const message = document.getElementById("message");
    message.textContent = text;
    message.classList.add("shown");
    clearTimeout(fade);
    fade = setTimeout(() => message.classList.remove("shown"), 1600);
  }
  async function copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
    } catch (_) { // no secure context, as on some machines with a file
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say(what + " copied");
  }
  async function save(id, format) {
    const heading = document.querySelector(`[data-figure="${id}"] h3`).textContent;
    const name = DATA.name + "-" + id;
    if (format === "csv") return download(csv(rows(id)), "text/csv", name + ".csv");
    if (format === "json") {
      const { header, body } = rows(id);
      return download(JSON.stringify({ title: heading, columns: header, rows: body }), "application/json", name + ".json");
    }
    const made = figure(id, heading);
    const height = made.layout.height + 110;
    delete made.layout.height;
    await Plotly.downloadImage(made, { format, width: 900, height, scale: format === "png" ? 2 : 1, filename: name });
    say(name + "." + format + " saved");
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { save: format, copy: kind, table, cite, method, act } = button.dataset;
    if (table && format) download(DATA.tables[table].csv, "text/csv", DATA.name + "-" + table + ".csv");
    else if (format) save(button.closest("[data-figure]").dataset.figure, format);
    else if (table) copy(DATA.tables[table][kind], kind === "tex" ? "LaTeX" : "Markdown");
    else if (cite !== undefined) copy(button.closest(".card").querySelector("pre").textContent, "BibTeX");
    else if (method !== undefined) {
      const number = Number(method);
      hidden.has(number) ? hidden.delete(number) : hidden.add(number);
      button.setAttribute("aria-pressed", String(!hidden.has(number)));
      drawEach();
    } else if (act === "theme") {
      theme({ auto: "light", light: "dark", dark: "auto" }[root.dataset.theme || "auto"]);
    } else if (act === "seeds") {
      seeds = !seeds;
      button.setAttribute("aria-pressed", String(seeds));
      drawEach();
    }
  });
  document.addEventListener("change", (event) => {
    const switched = event.target.dataset.switches;
    if (!switched) return;
    const option = event.target.selectedOptions ? event.target.selectedOptions[0] : event.target;
    for (const id of switched.split(" ")) {
      chosen[id] = event.target.value;
      draw(id);
      const title = option.dataset.title;
      if (!title) continue;
      const heading = document.querySelector(`[data-figure="${id}"] h3`);
      heading.textContent = title + heading.dataset.after;
      document.querySelector(`[data-figure="${id}"] .plot`).setAttribute("aria-label", heading.textContent);
    }
  });

  // -- tables that go on beside the screen

  function markScroll(scroll) {
    const more = scroll.scrollWidth - scroll.clientWidth - scroll.scrollLeft > 2;
    scroll.parentElement.toggleAttribute("data-more", more);
  }
  const watcher = new ResizeObserver((entries) => entries.forEach((entry) => markScroll(entry.target)));
  for (const scroll of document.querySelectorAll(".scroll")) {
    scroll.addEventListener("scroll", () => markScroll(scroll), { passive: true });
    watcher.observe(scroll);
  }

  // -- light and dark

  function theme(name, quiet) {
    if (name === "auto") delete root.dataset.theme;
    else root.dataset.theme = name;
    document.querySelector('[data-act="theme"]').textContent = { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" }[name];
    try { localStorage.setItem("fedecho-theme", name); } catch (_) { /* not allowed here */ }
    if (!quiet) drawAll();
  }
  let stored = "auto";
  try { stored = localStorage.getItem("fedecho-theme") || "auto"; } catch (_) { /* not allowed here */ }
  const wanted = new URLSearchParams(location.search).get("theme") || stored;
  theme(["auto", "light", "dark"].includes(wanted) ? wanted : "auto", true);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

  // -- printing: light, and as wide as a sheet

  let before;
  window.addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    printing = true;
    drawAll();
  });
  window.addEventListener("afterprint", () => {
    before === undefined ? delete root.dataset.theme : (root.dataset.theme = before);
    printing = false;
    drawAll();
  });

  start().catch((fault) => {
    document.getElementById("old-browser").hidden = false;
    root.dataset.drawn = "no";
    if (typeof DecompressionStream !== "undefined") throw fault;
  });
})();
