"use strict";
// The viewer: one activation at a time, every model's explanation of it side by side.
// Texts reach the page through textContent only; nothing of the data is ever parsed as HTML.
(() => {
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const { models, reference, activations, fates } = data;
  if (!activations.length) return;
  const byId = (name) => document.getElementById(`viewer-${name}`);
  const ROW_HEIGHT = 44; // must equal the height of .shelf-row in report.css
  const [TEXT, TOKENS, CONTENT, FVE, NOTE, SPANS] = [0, 1, 2, 3, 4, 5];
  const WORDS = {
    kept: "kept: said in both, nearly in the same words",
    reworded: "reworded: said in both, in other words",
    omitted: "omitted: only the reference says it",
    added: "added: the reference does not say it",
    quote: "quoted span",
  };

  const state = {
    compared: models.length > 1 ? (reference === 0 ? 1 : 0) : reference,
    query: "",
    filter: "all",
    sort: "idx",
    shown: [], // positions in `activations` that pass search and filter, in order
    at: 0, // position in `shown`
    samples: new Map(), // model → sample on display, for the current activation
  };
  // The strongest penalty differs most from the reference: a good first comparison.
  if (models.length > 1) {
    const others = models.map((_, place) => place).filter((place) => place !== reference);
    state.compared = others[others.length - 1];
  }

  // ---- numbers ----
  const mean = (values) => {
    const known = values.filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  };
  const fveOf = (activation, model) => mean(activation.models[model].map((row) => row[FVE]));
  const tokensOf = (activation, model) => mean(activation.models[model].map((row) => row[TOKENS]));
  function changeOf(activation, model) {
    const own = fveOf(activation, model);
    const base = fveOf(activation, reference);
    return own === null || base === null ? null : own - base;
  }
  const fixed = (value, digits) => value.toFixed(digits).replace("-", "−");
  const signed = (value, digits) => (value >= 0 ? "+" : "") + fixed(value, digits);

  // ---- search, filter, sort ----
  const isFailed = (row) => row[TEXT] === null;
  const isEmpty = (row) => row[TEXT] !== null && row[TEXT].trim() === "";
  const isText = (row) => !isFailed(row) && !isEmpty(row);
  const someRow = (activation, test) => activation.models[state.compared].some(test);
  function hasFate(activation, name) {
    const fate = fates.indexOf(name);
    const against = (span) => span[3] === -1 || span[3] === state.compared;
    const own = activation.models[name === "omitted" ? reference : state.compared];
    return own.some((row) => row[SPANS].some((span) => span[2] === fate && against(span)));
  }
  const anyModel = (activation, test) => activation.models.some((rows) => rows.some(test));

  const FILTERS = {
    all: ["all activations", () => true],
    source: ["source text known", (activation) => activation.source !== null],
    better: ["FVE above the reference", (activation) => changeOf(activation, state.compared) > 0],
    worse: ["FVE below the reference", (activation) => changeOf(activation, state.compared) < 0],
    text: ["compared model wrote text", (activation) => someRow(activation, isText)],
    empty: ["compared model is empty", (activation) => someRow(activation, isEmpty)],
    failed: ["compared model failed", (activation) => someRow(activation, isFailed)],
    "any-empty": ["any model is empty", (activation) => anyModel(activation, isEmpty)],
    "any-failed": ["any model failed", (activation) => anyModel(activation, isFailed)],
  };
  if (data.hasFates) {
    for (const name of ["kept", "reworded", "omitted", "added"]) {
      FILTERS[name] = [`has a claim ${name}`, (activation) => hasFate(activation, name)];
    }
  }
  const SORTS = {
    idx: ["idx", (activation) => activation.idx, 1],
    loss: ["FVE change, losses first", (activation) => changeOf(activation, state.compared), 1],
    gain: ["FVE change, gains first", (activation) => changeOf(activation, state.compared), -1],
    fve: ["FVE, lowest first", (activation) => fveOf(activation, state.compared), 1],
    short: ["tokens, fewest first", (activation) => tokensOf(activation, state.compared), 1],
    long: ["tokens, most first", (activation) => tokensOf(activation, state.compared), -1],
  };

  // Lower-cased once, on the first search: typing must not wait for it again.
  let haystacks = null;
  function matches(position) {
    haystacks ??= activations.map((activation) =>
      activation.models.flat().map((row) => row[TEXT] ?? "").join("\n").toLowerCase());
    return state.query.split(/\s+/).every((word) => haystacks[position].includes(word));
  }

  function refresh(keep) {
    const passes = FILTERS[state.filter][1];
    const [, value, direction] = SORTS[state.sort];
    const keyed = [];
    activations.forEach((activation, position) => {
      if (passes(activation) && (!state.query || matches(position))) {
        keyed.push([value(activation), position]);
      }
    });
    keyed.sort(([a, i], [b, j]) => {
      if (a === null || b === null) return a === b ? i - j : a === null ? 1 : -1;
      return direction * (a - b) || i - j;
    });
    state.shown = keyed.map(([, position]) => position);
    const place = state.shown.indexOf(keep);
    state.at = place >= 0 ? place : 0;
    const count = state.shown.length.toLocaleString("en");
    byId("count").textContent = `${count} of ${activations.length.toLocaleString("en")} activations`;
    render(true);
  }

  // ---- drawing ----
  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // Control characters and direction overrides become visible marks of the same length, so
  // that they can neither disturb the page nor shift the spans.
  const visible = (text) => text
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]/g, "\ufffd");

  function searchHits(text) {
    const hits = [];
    const lower = text.toLowerCase();
    // Lower-casing can change the length of a few letters; then positions would be off.
    if (!state.query || lower.length !== text.length) return hits;
    for (const word of state.query.split(/\s+/)) {
      for (let at = lower.indexOf(word); at >= 0 && word; at = lower.indexOf(word, at + word.length)) {
        hits.push([at, at + word.length, "hit"]);
      }
    }
    return hits;
  }

  // Spans may overlap (a quotation inside a claim): cut at every border, name every cover.
  function paint(target, text, spans) {
    const cuts = new Set([0, text.length]);
    for (const [start, end] of spans) cuts.add(Math.min(start, text.length)).add(Math.min(end, text.length));
    const borders = [...cuts].sort((a, b) => a - b);
    for (let i = 0; i + 1 < borders.length; i += 1) {
      const [from, to] = [borders[i], borders[i + 1]];
      const names = spans.filter(([start, end]) => start <= from && end >= to).map((span) => span[2]);
      const piece = visible(text.slice(from, to));
      if (!names.length) { target.append(piece); continue; }
      const mark = element(names.includes("hit") ? "mark" : "span", names.join(" "), piece);
      const fate = names.find((name) => name in WORDS && name !== "quote") ?? names.find((name) => name in WORDS);
      if (fate) mark.title = WORDS[fate];
      target.append(mark);
    }
  }

  function metric(name, value, className) {
    const box = element("span", `metric ${className ?? ""}`);
    box.append(element("b", "", value), ` ${name}`);
    return box;
  }

  function card(activation, model) {
    const rows = activation.models[model];
    const box = element("article", "card");
    box.dataset.model = models[model].name;
    if (model === reference) box.classList.add("is-reference");
    if (model === state.compared) box.classList.add("is-compared");
    const head = element("header");
    const name = element("h4");
    const swatch = element("span", "swatch");
    swatch.style.background = models[model].colour;
    name.append(swatch, visible(models[model].name));
    if (models[model].penalty !== null) name.append(element("small", "", ` λ ${models[model].penalty}`));
    if (model === reference) name.append(element("small", "badge", "reference"));
    else if (model === state.compared) name.append(element("small", "badge", "compared"));
    head.append(name);
    box.append(head);
    if (!rows.length) {
      box.append(element("p", "absent", "No row for this activation."));
      return box;
    }
    const sample = Math.min(state.samples.get(model) ?? 0, rows.length - 1);
    const row = rows[sample];
    const numbers = element("p", "metrics");
    if (row[TOKENS] !== null) {
      const part = metric("tokens", String(row[TOKENS]));
      if (row[CONTENT] !== null) part.title = `${row[CONTENT]} of content, the rest overhead`;
      numbers.append(part);
    }
    if (row[FVE] !== null) numbers.append(metric("FVE", fixed(row[FVE], 3)));
    const change = model === reference ? null : changeOf(activation, model);
    if (change !== null) {
      const part = metric("change", signed(change, 3), change < 0 ? "loss" : "gain");
      part.title = "FVE change from the reference" + (rows.length > 1 ? ", mean over samples" : "");
      numbers.append(part);
    }
    head.append(numbers);
    if (rows.length > 1) {
      const next = element("button", "link", `sample ${sample + 1} of ${rows.length}`);
      next.type = "button";
      next.addEventListener("click", () => {
        state.samples.set(model, (sample + 1) % rows.length);
        render(false);
      });
      head.append(next);
    }
    if (isFailed(row)) box.append(element("p", "absent", "Failed: no explanation could be parsed."));
    else if (isEmpty(row)) box.append(element("p", "absent", "Empty: the tags hold nothing."));
    else {
      const body = element("p", "explanation");
      body.dir = "auto";
      const spans = row[SPANS]
        .filter((span) => span[3] === -1 || span[3] === state.compared)
        .map(([start, end, fate]) => [start, end, fates[fate]]);
      paint(body, row[TEXT], spans.concat(searchHits(row[TEXT])));
      box.append(body);
    }
    if (row[NOTE]) box.append(element("p", "small", row[NOTE]));
    return box;
  }

  const current = () => activations[state.shown[state.at]];
  const nameOf = (activation) => (activation.id === null ? String(activation.idx) : visible(activation.id));

  function render(listToo) {
    const activation = current();
    const cards = byId("cards");
    byId("previous").disabled = state.at <= 0;
    byId("next").disabled = state.at >= state.shown.length - 1;
    byId("source").replaceChildren();
    if (!activation) {
      byId("where").textContent = "Nothing matches";
      cards.replaceChildren(element("p", "absent", "No activation passes the search and the filter."));
      if (listToo) drawList();
      return;
    }
    byId("where").replaceChildren(
      `Activation ${nameOf(activation)} `,
      element("small", "", `${(state.at + 1).toLocaleString("en")} of ${state.shown.length.toLocaleString("en")}`),
    );
    if (activation.source === null) {
      byId("source").append(element("span", "absent", "The table has no source text for this activation."));
    } else {
      byId("source").append(element("span", "source-name", "source ends"), " …");
      const text = element("bdi", "", visible(activation.source));
      byId("source").append(text, element("span", "caret"));
    }
    // The pair under comparison stands side by side, whatever the other models are.
    const order = [...new Set([reference, state.compared, ...models.keys()])];
    cards.replaceChildren(...order.map((model) => card(activation, model)));
    history.replaceState(null, "", `#activation=${encodeURIComponent(activation.idx)}`);
    if (listToo) drawList();
  }

  // Only the rows in sight exist; the runway gives the scroll bar its length.
  const list = byId("list");
  const runway = byId("runway");
  function drawList() {
    runway.style.height = `${state.shown.length * ROW_HEIGHT}px`;
    const top = state.at * ROW_HEIGHT;
    if (top < list.scrollTop || top + ROW_HEIGHT > list.scrollTop + list.clientHeight) {
      list.scrollTop = Math.max(0, top - list.clientHeight / 2);
    }
    fillList();
  }
  function fillList() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW_HEIGHT) - 4);
    const last = Math.min(state.shown.length, first + Math.ceil(list.clientHeight / ROW_HEIGHT) + 8);
    const rows = [];
    for (let place = first; place < last; place += 1) {
      const activation = activations[state.shown[place]];
      const row = element("div", "shelf-row");
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", String(place === state.at));
      row.dataset.place = String(place);
      row.style.top = `${place * ROW_HEIGHT}px`;
      const change = changeOf(activation, state.compared);
      const first = activation.models[state.compared][0];
      const text = first && first[TEXT] !== null ? first[TEXT].trim().slice(0, 90) || "(empty)" : "(failed)";
      row.append(
        element("span", "shelf-idx", nameOf(activation)),
        element("span", "shelf-text", visible(text)),
        element("span", `shelf-change ${change === null ? "" : change < 0 ? "loss" : "gain"}`,
          change === null ? "–" : signed(change, 2)),
      );
      rows.push(row);
    }
    runway.replaceChildren(...rows);
  }
  let scheduled = false;
  list.addEventListener("scroll", () => {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => { scheduled = false; fillList(); });
  });
  list.addEventListener("click", (event) => {
    const row = event.target.closest(".shelf-row");
    if (row) go(Number(row.dataset.place));
  });

  // ---- moving ----
  function go(place) {
    if (place < 0 || place >= state.shown.length) return;
    state.at = place;
    state.samples.clear();
    render(true);
  }
  function compareWith(model) {
    state.compared = model;
    byId("model").value = String(model);
    refresh(state.shown[state.at]);
  }
  function stepModel(direction) {
    const order = models.map((_, place) => place).filter((place) => place !== reference);
    if (!order.length) return;
    const place = order.indexOf(state.compared) + direction;
    compareWith(order[(place + order.length) % order.length]);
  }

  function options(select, entries) {
    select.replaceChildren(...entries.map(([value, text]) => {
      const option = element("option", "", text);
      option.value = value;
      return option;
    }));
  }
  const named = (entries) => Object.entries(entries).map(([name, [text]]) => [name, text]);
  const comparable = models.map((model, place) => [String(place), visible(model.name)])
    .filter(([place]) => models.length === 1 || Number(place) !== reference);
  options(byId("model"), comparable);
  options(byId("filter"), named(FILTERS));
  options(byId("sort"), named(SORTS));
  byId("model").value = String(state.compared);

  byId("model").addEventListener("change", (event) => compareWith(Number(event.target.value)));
  byId("filter").addEventListener("change", (event) => {
    state.filter = event.target.value;
    refresh(state.shown[state.at]);
  });
  byId("sort").addEventListener("change", (event) => {
    state.sort = event.target.value;
    refresh(-1);
  });
  let typing = 0;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      state.query = event.target.value.trim().toLowerCase();
      refresh(state.shown[state.at]);
    }, 120);
  });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("previous").addEventListener("click", () => go(state.at - 1));
  byId("next").addEventListener("click", () => go(state.at + 1));
  byId("help-open").addEventListener("click", () => byId("help").showModal());

  const section = document.getElementById("viewer");
  function inSight() {
    const { top, bottom } = section.getBoundingClientRect();
    return top < window.innerHeight * 0.75 && bottom > window.innerHeight * 0.25;
  }
  const KEYS = {
    ArrowLeft: () => go(state.at - 1),
    k: () => go(state.at - 1),
    ArrowRight: () => go(state.at + 1),
    j: () => go(state.at + 1),
    "[": () => stepModel(-1),
    "]": () => stepModel(1),
    "/": () => byId("search").focus(),
    "?": () => byId("help").showModal(),
  };
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, select, textarea, dialog, .table-box");
    if (event.key === "Escape" && event.target === byId("search")) event.target.blur();
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !inSight()) return;
    const action = KEYS[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  if (data.hasFates) {
    byId("legend").replaceChildren(...Object.entries(WORDS).map(([name, text]) => {
      const item = element("li");
      item.append(element("span", name, name), text.startsWith(name + ":") ? text.slice(name.length) : " marks a quotation");
      return item;
    }));
  } else byId("legend").remove();

  // A link to an activation opens on it.
  function fromHash() {
    const found = /^#activation=(.+)$/.exec(location.hash);
    if (!found) return -1;
    const idx = Number(decodeURIComponent(found[1]));
    return activations.findIndex((activation) => activation.idx === idx);
  }
  const linked = fromHash();
  const hash = location.hash;
  refresh(Math.max(linked, 0));
  if (linked >= 0) section.scrollIntoView();
  else history.replaceState(null, "", hash || location.pathname);
  window.addEventListener("hashchange", () => {
    const position = fromHash();
    const place = state.shown.indexOf(position);
    if (place >= 0) go(place);
  });
})();
