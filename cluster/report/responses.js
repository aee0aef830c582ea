// The browser of responses: filters, search, a list in pages, and one response in full.
"use strict";
const responses = (() => {
  const PAGE = 25; // rows in the document at once, whatever there is of them
  const FIELDS = ["source", "prompt", "group", "target", "text", "answer", "confidence", "correct", "malformed",
    "answerSpan", "confidenceSpan", "flags", "parts", "mix", "total", "versions", "failure", "majority"];
  const AT = Object.fromEntries(FIELDS.map((name, place) => [name, place]));
  const ORDERS = {
    "as sampled": null,
    "most confident": (row) => -(row[AT.confidence] ?? -1),
    "least confident": (row) => row[AT.confidence] ?? 2,
    "most overconfident": (row) => (row[AT.correct] === null || row[AT.confidence] === null ? 2 : row[AT.correct] - row[AT.confidence]),
    "least reward": (row) => row[AT.total] ?? Infinity,
    "newest": (row, place) => -place,
  };
  const $ = (id) => document.getElementById(id);
  const make = (tag, kind, ...children) => {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  };

  let data, hay, shown = [], at = 0;
  let filter = null;

  function take(text) {
    data = JSON.parse(text);
    hay = null;
    const chosen = $("source").value;
    $("source").replaceChildren(...["everything", ...data.sources].map((name, i) => new Option(name, i ? name : "")));
    if (data.sources.includes(chosen)) $("source").value = chosen;
    $("notes").textContent = data.notes.join("; ");
  }

  function haystack() {
    const prompts = data.prompts.map((prompt) => `${prompt.id}\n${prompt.text ?? ""}`.toLowerCase());
    return data.rows.map((row) => `${row[AT.text]}\n${row[AT.answer] ?? ""}`.toLowerCase() + "\n" + prompts[row[AT.prompt]]);
  }

  // A response by what it is: when the page is renewed, its row has another place.
  function reading() {
    if (!shown.length) return null;
    const row = data.rows[shown[at]];
    const told = { at, source: data.sources[row[AT.source]], group: row[AT.group], text: row[AT.text] };
    return { ...told, number: alike(told).indexOf(shown[at]) }; // a group may have said the same twice
  }

  function alike({ source, group, text }) {
    const same = (row) => row[AT.text] === text && row[AT.group] === group && data.sources[row[AT.source]] === source;
    return data.rows.flatMap((row, place) => (same(row) ? [place] : []));
  }

  function placeOf(read) {
    const place = shown.indexOf(alike(read)[read.number]);
    return place >= 0 ? place : Math.max(0, Math.min(read.at, shown.length - 1)); // it may have been left out since
  }

  function choose(read = null) {
    const source = $("source").value === "" ? -1 : data.sources.indexOf($("source").value);
    const wanted = $("search").value.trim().toLowerCase();
    if (wanted && !hay) hay = haystack();
    const counts = data.filters.map(() => 0);
    let all = 0;
    const found = [];
    data.rows.forEach((row, place) => {
      if (source >= 0 && row[AT.source] !== source) return;
      if (wanted && !hay[place].includes(wanted)) return;
      all += 1;
      data.filters.forEach((_, bit) => { if (row[AT.flags] >> bit & 1) counts[bit] += 1; });
      if (filter === null || row[AT.flags] >> filter & 1) found.push(place);
    });
    const key = ORDERS[$("order").value];
    if (key) {
      const keys = new Map(found.map((place) => [place, key(data.rows[place], place)]));
      found.sort((a, b) => keys.get(a) - keys.get(b) || a - b);
    }
    shown = found;
    at = read ? placeOf(read) : 0;
    drawFilters(counts, all);
    draw();
  }

  function drawFilters(counts, all) {
    const entry = (bit, title, meaning, count) => {
      const button = make("button", "", `${title} ${count.toLocaleString("en")}`);
      button.type = "button";
      button.title = meaning;
      button.dataset.filter = bit === null ? "all" : data.filters[bit].name;
      button.setAttribute("aria-pressed", String(filter === bit));
      button.addEventListener("click", () => {
        filter = bit;
        choose();
        document.querySelector(`[data-filter="${button.dataset.filter}"]`).focus(); // it was made anew
      });
      return button;
    };
    $("filters").replaceChildren(
      entry(null, "All", "every response", all),
      ...data.filters.map((one, bit) => entry(bit, one.title, one.meaning, counts[bit])),
    );
  }

  const fixed = (number, digits = 2) => (number === null || number === undefined ? "" : number.toFixed(digits));
  const signed = (number, digits = 3) => (number >= 0 ? "+" : "") + number.toFixed(digits);
  const verdict = (row) => {
    if (row[AT.malformed]) return "malformed";
    if (row[AT.correct] === null) return "unjudged";
    return row[AT.correct] >= 0.5 ? "right" : "wrong";
  };
  const MARKS = { right: "✓", wrong: "✗", malformed: "!", unjudged: "?" };

  function draw() {
    const first = Math.floor(at / PAGE) * PAGE;
    const rows = shown.slice(first, first + PAGE).map((place, i) => line(place, first + i));
    $("list").replaceChildren(...(rows.length ? rows : [make("div", "empty", "No response is like this.")]));
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    $("place").textContent = `page ${first / PAGE + 1} of ${pages.toLocaleString("en")}, ${shown.length.toLocaleString("en")} responses`;
    $("before").disabled = first === 0;
    $("after").disabled = first + PAGE >= shown.length;
    $("list").setAttribute("aria-activedescendant", shown.length ? `row-${shown[at]}` : "");
    detail();
  }

  function line(place, number) {
    const row = data.rows[place], told = verdict(row);
    const mark = make("span", `mark-${told}`, MARKS[told]);
    mark.title = told;
    const fill = make("i");
    fill.style.width = `${100 * (row[AT.confidence] ?? 0)}%`;
    const made = make("div", "row", mark,
      make("span", "said", row[AT.answer] ?? row[AT.malformed]?.replaceAll("_", " ") ?? "no score", " ", make("span", "", data.prompts[row[AT.prompt]].id)),
      make("span", "meter", fill),
      make("span", "number", fixed(row[AT.confidence])),
      make("span", "total", row[AT.total] === null ? "" : signed(row[AT.total], 2)));
    made.id = `row-${place}`;
    made.setAttribute("role", "option");
    made.setAttribute("aria-selected", String(number === at));
    made.addEventListener("click", () => { move(number); if (innerWidth <= 760) $("detail").scrollIntoView({ block: "start" }); });
    return made;
  }

  function move(to) {
    if (!shown.length) return;
    at = Math.max(0, Math.min(to, shown.length - 1));
    draw();
    $(`row-${shown[at]}`).scrollIntoView({ block: "nearest" });
  }

  function detail() {
    const parts = shown.length ? inFull() : [], old = [...$("detail").childNodes];
    if (parts.length === old.length && parts.every((part, i) => part.isEqualNode(old[i]))) return; // scrolled and read out as it is
    $("detail").replaceChildren(...parts);
    $("detail").scrollTop = 0;
  }

  function inFull() {
    const row = data.rows[shown[at]], prompt = data.prompts[row[AT.prompt]];
    const pictures = prompt.pictures.map((number) => {
      const picture = make("img");
      picture.src = data.pictures[number];
      picture.alt = `picture of ${prompt.id}`;
      return picture;
    });
    return [
      make("h3", "", prompt.id),
      make("div", "note", data.sources[row[AT.source]]),
      pictures.length ? make("div", "pictures", ...pictures) : null,
      prompt.text === null ? null : make("div", "prompt", prompt.text),
      highlighted(row),
      worth(row),
      facts(row, prompt),
    ].filter((part) => part !== null);
  }

  function highlighted(row) {
    const made = make("div", "text"), text = row[AT.text];
    const told = verdict(row);
    const marks = [[row[AT.answerSpan], `answer ${told}`], [row[AT.confidenceSpan], "confidence"]].filter(([span]) => span);
    let done = 0;
    for (const [[start, end], kind] of marks.sort((a, b) => a[0][0] - b[0][0])) {
      plain(made, text.slice(done, start));
      made.append(make("mark", kind, text.slice(start, end)));
      done = end;
    }
    plain(made, text.slice(done));
    return made;
  }

  function plain(into, text) {
    text.split(/(<\/?[A-Za-z][\w-]*>)/).forEach((piece, i) => { if (piece) into.append(i % 2 ? make("span", "tag", piece) : piece); });
  }

  function worth(row) {
    if (row[AT.parts] === null) return null;
    const mix = data.mixes[row[AT.mix]];
    const cells = (...texts) => texts.map((text, i) => make(i ? "td" : "th", "", text));
    const rows = data.parts.map((part, i) => make("tr", "",
      ...cells(part, fixed(row[AT.parts][i], 3), "×", String(mix[part]), "=", signed(mix[part] * row[AT.parts][i]))));
    const sum = make("tr", "sum", ...cells("total", "", "", "", "", signed(row[AT.total])));
    return make("table", "worth", make("tbody", "", ...rows, sum));
  }

  function facts(row, prompt) {
    const versions = row[AT.versions].map(([version, start, end]) => `${version} (tokens ${start} to ${end - 1})`).join(", ");
    const majority = row[AT.majority];
    const suspect = data.filters.findIndex((one) => one.name === "sabotage");
    const list = {
      "malformed": row[AT.malformed]?.replaceAll("_", " "),
      "no score": row[AT.failure],
      "answer": row[AT.answer],
      "held against": row[AT.target],
      "correct": row[AT.correct] === null ? null : fixed(row[AT.correct]),
      "confidence": row[AT.confidence] === null ? null : fixed(row[AT.confidence], 3),
      "reference": prompt.reference,
      "group": row[AT.group] === prompt.id ? null : row[AT.group],
      "weight version": versions,
      "suspect": row[AT.flags] >> suspect & 1
        ? "another answer than most of its group, and called wrong" +
          (majority === null ? "" : `: it earned ${signed(row[AT.total])}, the group's most frequent answer ${signed(majority)}`)
        : null,
    };
    return make("dl", "", ...Object.entries(list).filter(([, value]) => value).flatMap(
      ([name, value]) => [make("dt", "", name), make("dd", "", value)]));
  }

  function keys(event) {
    const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, ArrowRight: PAGE, PageDown: PAGE, ArrowLeft: -PAGE, PageUp: -PAGE };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) move(at + steps[event.key]);
    else if (event.key === "Home") move(0);
    else if (event.key === "End") move(shown.length - 1);
    else return;
    event.preventDefault();
  }

  function start() {
    $("order").replaceChildren(...Object.keys(ORDERS).map((name) => new Option(name)));
    take($("data").textContent);
    choose();
    $("source").addEventListener("change", () => choose());
    $("order").addEventListener("change", () => choose());
    let typing;
    $("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => choose(), 120); });
    $("controls").addEventListener("submit", (event) => event.preventDefault());
    $("before").addEventListener("click", () => move(at - PAGE));
    $("after").addEventListener("click", () => move(at + PAGE));
    $("list").addEventListener("keydown", keys);
    $("search").addEventListener("keydown", (event) => { if (event.key === "Escape" || event.key === "Enter") $("list").focus(); });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.target.closest("input, select")) return;
      event.preventDefault();
      $("search").focus();
    });
  }

  function renew(text) {
    const read = reading();
    take(text);
    choose(read);
  }

  return { start, renew };
})();
