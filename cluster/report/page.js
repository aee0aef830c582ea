// What the page does as a whole: dark or light, and following a run.
"use strict";
const ASK_EVERY = 5000; // ms

async function follow(version) {
  let next = version;
  try {
    next = await (await fetch("version", { cache: "no-store" })).text();
    if (version !== null && next !== version) {
      const fresh = new DOMParser().parseFromString(await (await fetch("./", { cache: "no-store" })).text(), "text/html");
      document.getElementById("sections").replaceWith(document.adoptNode(fresh.getElementById("sections")));
      readings();
      responses.renew(fresh.getElementById("data").textContent);
    }
    document.documentElement.dataset.live = "following";
  } catch (error) {
    document.documentElement.dataset.live = "lost"; // the server was stopped; it may come again
    next = version;
  }
  setTimeout(() => follow(next), ASK_EVERY);
}

function otherTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

responses.start();
readings();
document.getElementById("theme").addEventListener("click", otherTheme);
if ("live" in document.documentElement.dataset) follow(null);
