"use strict";
(() => {
  const source = document.getElementById("table");
  if (!source) return; // no numbers, no table

  const data = JSON.parse(document.getElementById("data").textContent);
  const CHUNK = 200; // rows that a browser can lay out without a noticeable delay

  // The worst comes first.
  const STATUSES = {
    drifted: ["⇄", "Drifted"],
    different: ["≠", "Another key"],
    unreadable: ["!", "Unreadable"],
    unconfirmed: ["?", "Unconfirmed"],
    absent: ["–", "Absent"],
    ok: ["✓", data.expected === null ? "Confirmed" : "As expected"],
  };
  const ORDER = Object.keys(STATUSES);

  const look = (column, i) => data.values[column][data.places[column][i]];

  const carriers = new Map();
  const rows = data.number.map((number, i) => {
    const [key, state, api, sid] = ["fingerprint", "state", "api", "sid"].map((column) => look(column, i));
    const status = state !== "confirmed" ? state : data.expected !== null && key !== data.expected ? "different" : "ok";
    if (state === "confirmed") carriers.set(key, (carriers.get(key) || 0) + 1);
    const words = [number, key, api, sid, data.msg[i]].filter((part) => part !== null).join(" ").toLowerCase();
    return { number, key, api, sid, status, rank: ORDER.indexOf(status), since: data.since[i], msg: data.msg[i], words };
  });

  const byText = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  // Unknown sorts after every known value. If no key is expected, the rarest key comes first.
  const last = (value) => (value === null ? "\uffff" : value);
  const byAccount = (a, b) => byText(last(a.api), last(b.api)) || byText(last(a.sid), last(b.sid));
  const rarity = (row) => (row.status === "ok" ? carriers.get(row.key) : 0);
  const COLUMNS = {
    status: (a, b) => a.rank - b.rank || rarity(a) - rarity(b),
    number: (a, b) => byText(a.number, b.number),
    key: (a, b) => byText(last(a.key), last(b.key)),
    since: (a, b) => byText(last(a.since), last(b.since)),
    account: byAccount,
  };

  const $ = (id) => document.getElementById(id);
  const body = source.querySelector("tbody");
  const [text, status, key, more, count] = ["text", "status", "key", "more", "count"].map($);
  let sorted = { column: "status", direction: 1 };
  let matching = [];
  let shown = 0;

  const element = (name, attributes, ...children) => {
    const made = document.createElement(name);
    for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
    made.append(...children.filter((child) => child !== null)); // strings become text, never markup
    return made;
  };
  const cell = (name, ...children) => element("td", { role: "cell", class: name }, ...children);
  // The beginning and the end on the screen, all of it on paper.
  const fingerprint = (whole) => element("code", { title: whole },
    element("span", { class: "short" }, short(whole)),
    element("span", { class: "whole" }, whole.slice(0, 48), element("wbr", {}), whole.slice(48)));
  const short = (whole) => `${whole.slice(0, 11)}…${whole.slice(-11)}`;
  const readable = (moment) => moment.replace("T", " ").replace("Z", " UTC");
  const thousands = (value) => value.toLocaleString("en");

  const UNITS = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60]];
  const relative = new Intl.RelativeTimeFormat("en");
  const now = Date.now();
  const ago = (since) => {
    const seconds = (now - Date.parse(since)) / 1000;
    if (Number.isNaN(seconds)) return "";
    if (seconds < 0) return "ahead of this device's clock";
    const unit = UNITS.find(([, length]) => seconds >= length);
    return unit ? relative.format(-Math.floor(seconds / unit[1]), unit[0]) : "just now";
  };

  const makeRow = (row) => {
    const [mark, label] = STATUSES[row.status];
    return element("tr", { role: "row" },
      cell("status-cell",
        element("span", { class: `status ${row.status}` }, element("span", { class: "mark", "aria-hidden": "true" }, mark), label)),
      cell("number", row.number),
      cell("key", row.key === null ? null : fingerprint(row.key),
        row.status === "unconfirmed" ? element("small", {}, "or the key it had before") : null,
        row.msg === null ? null : element("small", {}, row.msg)),
      cell("since", ...(row.since === null ? [] : [
        element("time", { datetime: row.since }, readable(row.since)), element("small", {}, ago(row.since))])),
      cell("account", row.sid, row.api === null ? null : element("small", {}, row.api)));
  };

  const show = (many) => {
    const rowsToCome = matching.slice(shown, shown + many);
    const fragment = document.createDocumentFragment();
    for (const row of rowsToCome) fragment.append(makeRow(row));
    body.append(fragment);
    shown += rowsToCome.length;
    const left = matching.length - shown;
    more.parentElement.hidden = left === 0;
    more.textContent = `Show ${thousands(Math.min(left, CHUNK))} more`;
    const found = matching.length === rows.length ? `${thousands(rows.length)} numbers` : `${thousands(matching.length)} of ${thousands(rows.length)} numbers`;
    count.textContent = matching.length === 0 ? "No number matches." : left ? `${found}, the first ${thousands(shown)} shown.` : `${found} shown.`;
  };

  const update = () => {
    const wanted = text.value.trim().toLowerCase();
    const compare = COLUMNS[sorted.column];
    matching = rows.filter((row) => (!wanted || row.words.includes(wanted)) && (!status.value || row.status === status.value)
      && (!key.value || row.key === key.value));
    matching.sort((a, b) => sorted.direction * compare(a, b) || byText(a.number, b.number) || byAccount(a, b));
    for (const column of Object.keys(COLUMNS)) {
      const header = $(`by-${column}`);
      if (column === sorted.column) header.setAttribute("aria-sort", sorted.direction > 0 ? "ascending" : "descending");
      else header.removeAttribute("aria-sort");
    }
    body.replaceChildren();
    shown = 0;
    show(CHUNK);
  };

  for (const column of Object.keys(COLUMNS)) {
    $(`by-${column}`).firstElementChild.addEventListener("click", () => {
      sorted = { column, direction: column === sorted.column ? -sorted.direction : 1 };
      update();
    });
  }

  status.append(new Option("Every status", ""));
  for (const [value, [, label]] of Object.entries(STATUSES)) {
    const many = rows.filter((row) => row.status === value).length;
    if (many) status.append(new Option(`${label} (${thousands(many)})`, value));
  }
  key.append(new Option("Every key", ""));
  for (const whole of data.values.fingerprint.filter((value) => value !== null)) {
    key.append(new Option(short(whole) + (whole === data.expected ? " (expected)" : ""), whole));
  }

  text.addEventListener("input", update);
  for (const control of [status, key]) control.addEventListener("change", update);
  $("reset").addEventListener("click", () => {
    for (const control of [text, status, key]) control.value = "";
    sorted = { column: "status", direction: 1 };
    update();
    text.focus();
  });
  more.addEventListener("click", () => show(CHUNK));
  // A printed page shows all rows, the time of printing and the filters.
  addEventListener("beforeprint", () => {
    show(matching.length - shown);
    const filters = [text.value.trim() && `"${text.value.trim()}"`, ...[status, key].map((control) => control.value && control.selectedOptions[0].text)];
    const chosen = filters.filter(Boolean).join(", ");
    $("printed").textContent = `Printed ${readable(new Date().toISOString().replace(/\.\d+/, ""))}.${chosen ? ` Numbers filtered by: ${chosen}.` : ""}`;
  });

  for (const time of document.querySelectorAll("header time")) time.after(` (${ago(time.dateTime)})`);

  source.hidden = false;
  update();
})();
