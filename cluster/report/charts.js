// A curve under the pointer: its step and values, in the line under the chart's title.
"use strict";
function readings() {
  for (const svg of document.querySelectorAll("svg.curves")) {
    const lines = [...svg.querySelectorAll("[data-points]")].map((line) => ({
      label: line.dataset.label,
      places: line.getAttribute("points").split(" ").map((pair) => Number(pair.split(",")[0])),
      values: line.dataset.points.split(" ").map((pair) => pair.split(":")),
    }));
    const note = svg.closest("figure").querySelector(".note"), said = note.textContent;
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cursor.setAttribute("class", "cursor");
    svg.addEventListener("pointermove", (event) => {
      const x = (event.clientX - svg.getBoundingClientRect().left) * 360 / svg.getBoundingClientRect().width;
      const nearest = lines.map(({ places }) => places.reduce((best, place, i) => (Math.abs(place - x) < Math.abs(places[best] - x) ? i : best), 0));
      const place = lines[0].places[nearest[0]];
      for (const [name, value] of Object.entries({ x1: place, x2: place, y1: 18, y2: 138 })) cursor.setAttribute(name, value);
      svg.append(cursor);
      note.textContent = `step ${lines[0].values[nearest[0]][0]}: ` + lines.map((line, i) => `${line.label} ${line.values[nearest[i]][1]}`).join(", ");
    });
    svg.addEventListener("pointerleave", () => { cursor.remove(); note.textContent = said; });
  }
}
