// Keeps the status page up to date: asks for its data and changes the words that differ, so that nothing flickers, focus and
// selection stay, and screen readers hear of it only when the headline changes. Without this script the page loads itself anew.

(() => {
  "use strict";

  const PACE_MS = 1500;
  const TIMEOUT_MS = 20000;
  const DOING = { kill: "Kill", start: "Start" };
  const page = document.getElementById("standing");
  const byId = (id) => document.getElementById(id);
  let timer = 0;
  let latest = 0;

  const say = (element, text) => {
    if (element && element.textContent !== text) element.textContent = text;
  };

  const headline = (state, text) => {
    byId("headline").className = `headline ${state}`;
    say(byId("headline-text"), text);
  };

  const list = (element, sentences) => {
    const shown = [...element.children].map((item) => item.textContent);
    element.hidden = sentences.length === 0;
    if (JSON.stringify(shown) === JSON.stringify(sentences)) return;
    element.replaceChildren(...sentences.map((sentence) => {
      const item = document.createElement("li");
      item.textContent = sentence;
      return item;
    }));
  };

  const row = (element, node) => {
    if (element.className !== node.state) element.className = node.state;
    for (const name of element.querySelectorAll("[data-name]")) say(name, node.name);
    for (const cell of element.querySelectorAll("[data-cell]")) say(cell, node.cells[cell.dataset.cell]);
    const button = element.querySelector("button");
    if (button && !button.hasAttribute("aria-busy")) {
      button.value = node.do;
      say(button.querySelector("[data-do]"), DOING[node.do]);
    }
  };

  const show = (standing) => {
    const rows = new Map([...page.querySelectorAll("[data-node]")].map((element) => [element.dataset.node, element]));
    const tiles = [...page.querySelectorAll("[data-tile]")];
    const isSame = standing.kind === page.dataset.kind && rows.size === standing.rows.length
      && standing.rows.every((node) => rows.has(node.address))
      && tiles.length === Object.keys(standing.tiles).length && tiles.every((tile) => tile.dataset.tile in standing.tiles);
    if (!isSame) {
      // Nodes have come or gone for good: that takes another page.
      location.replace(location.pathname);
      return;
    }
    headline(standing.state, standing.headline);
    list(byId("reasons"), standing.reasons);
    list(byId("warnings"), standing.warnings);
    for (const tile of tiles) say(tile, standing.tiles[tile.dataset.tile]);
    for (const node of standing.rows) row(rows.get(node.address), node);
  };

  const look = async () => {
    clearTimeout(timer);
    const number = ++latest;
    try {
      const answer = await fetch(page.dataset.url, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const standing = await answer.json();
      if (number === latest) show(standing);
    } catch {
      if (number === latest) headline("lost", "The site does not answer. These are its last figures.");
    }
    if (number === latest && !document.hidden) timer = setTimeout(look, PACE_MS);
  };

  const send = async (event) => {
    event.preventDefault();
    const form = event.target;
    const button = form.querySelector("button");
    if (button.hasAttribute("aria-busy")) return;
    button.setAttribute("aria-busy", "true");
    const fields = new FormData(form);
    fields.set("do", button.value);
    let failure = "";
    try {
      const answer = await fetch(form.action, { method: "POST", body: fields });
      if (!answer.ok) failure = "That did not work. The terminal that runs the site says more.";
    } catch {
      failure = "The site does not answer.";
    }
    button.removeAttribute("aria-busy");
    byId("failure").hidden = failure === "";
    say(byId("failure"), failure);
    await look();
  };

  for (const form of page.querySelectorAll("form")) form.addEventListener("submit", send);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  timer = setTimeout(look, PACE_MS);
})();
