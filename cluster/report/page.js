// What the page does as a whole: dark or light, and following a run.
"use strict";
const ASK_EVERY = 5000; // ms

async function asked(path) {
  const answer = await fetch(path, { cache: "no-store" }).catch(() => { throw new Error("Connection lost"); });
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.text();
}

function tell(state, words) {
  const told = document.getElementById("live");
  document.documentElement.dataset.live = state;
  if (told.textContent !== words) told.textContent = words; // what is set is read out, even if it is the same
}

async function follow(version) {
  let next = version;
  try {
    next = await asked("version");
    if (version !== null && next !== version) {
      const fresh = new DOMParser().parseFromString(await asked("./"), "text/html");
      document.getElementById("sections").replaceWith(document.adoptNode(fresh.getElementById("sections")));
      readings();
      responses.renew(fresh.getElementById("data").textContent);
    }
    tell("following", "Following the run");
  } catch (error) {
    tell("lost", `${error.message}; it is tried again`); // the server may come again, and the run be whole again
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
