"use strict";
// Shows the snapshots that /events sends. Counts only grow, so a rate is the difference of two counts.

const SECONDS = 120;
const SHOWN = 20; // clients
const token = document.querySelector('meta[name="csrf-token"]').content;
const history = []; // {time, allowed, denied} per second, the newest last
let last = null; // the previous snapshot

const element = (id) => document.getElementById(id);

/** An element with text or children; text is never read as HTML. */
function make(name, content, attributes = {}) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...[content ?? ""].flat());
  return made;
}

const whole = (number) => number.toLocaleString("en");
const rate = (number) => (number >= 100 || number === 0 ? whole(Math.round(number)) : number.toFixed(1));

function ago(seconds) {
  if (seconds < 2) return "now";
  if (seconds < 100) return `${Math.round(seconds)} s ago`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

function until(moment, now) {
  if (moment === null) return "forever";
  const left = moment - now;
  if (left < 100) return `${Math.max(0, Math.round(left))} s`;
  if (left < 6000) return `${Math.round(left / 60)} min`;
  return left < 172800 ? `${Math.round(left / 3600)} h` : `${Math.round(left / 86400)} days`;
}

/** The rate since the last snapshot; 0 for a row that was not in it. */
function perSecond(rows, identify, field, seconds) {
  const before = new Map((rows.before ?? []).map((row) => [identify(row), row[field]]));
  return (row) => {
    if (!seconds) return 0;
    const known = before.get(identify(row));
    return known === undefined || row[field] < known ? 0 : (row[field] - known) / seconds;
  };
}

function fill(id, rows) {
  const table = element(id);
  table.tBodies[0].replaceChildren(...rows);
  table.hidden = rows.length === 0;
  table.nextElementSibling.hidden = rows.length > 0;
}

function button(action, client, text) {
  const made = make("button", text, { type: "button", value: action });
  made.addEventListener("click", () => act(action, client, action === "unlist" ? null : 3600));
  made.setAttribute("aria-label", `${text} ${client}`);
  if (action === "block") made.title = "for one hour";
  return made;
}

const cell = (content, attributes) => make("td", content, attributes);
const counted = (number, text) => cell(text, number > 0 ? { class: "some" } : {});

function showLimits(state, seconds) {
  const rows = { before: last?.limits };
  const name = (row) => row.limit;
  const allowed = perSecond(rows, name, "allowed", seconds);
  const denied = perSecond(rows, name, "denied", seconds);
  const sums = { allowed: 0, denied: 0 };
  fill("limits", state.limits.map((row) => {
    const a = allowed(row), d = denied(row);
    sums.allowed += a;
    sums.denied += d;
    return make("tr", [cell(row.limit), cell(rate(a)), counted(d, rate(d)), cell(whole(row.allowed)),
      counted(row.denied, whole(row.denied)), cell(whole(row.near)), cell(whole(row.shadow))]);
  }));
  return sums;
}

function showTopClients(id, field, state, seconds) {
  const name = (row) => `${row.client}\n${row.limit}`;
  const speed = perSecond({ before: last?.[id] }, name, field, seconds);
  const blocked = new Set(state.rules.filter((rule) => rule.kind === "block").map((rule) => rule.client));
  // Clients with the highest current rate come first; a small change of the rate does not move rows.
  const known = new Set((last?.[id] ?? []).map(name));
  const rank = (row) => Math.round(Math.log2(1 + (known.has(name(row)) || !seconds ? speed(row) : Math.min(row[field], 10) / seconds)));
  const rows = state[id].map((row) => ({ row, rank: rank(row) }));
  rows.sort((a, b) => b.rank - a.rank || b.row[field] - a.row[field]);
  fill(id, rows.slice(0, SHOWN).map(({ row }) => make("tr", [
    cell(row.client, { title: row.error ? `at most ${whole(row.error)} too many` : "exact" }),
    cell(row.limit), cell(rate(speed(row))), cell(whole(row[field])), cell(ago(state.time - row.last)),
    cell(blocked.has(row.client) ? "blocked" : button("block", row.client, "Block")),
  ])));
}

function showRules(state) {
  fill("rules", state.rules.map((rule) => make("tr", [
    cell(rule.client), cell(rule.kind), cell(until(rule.until, state.time)),
    cell(button("unlist", rule.client, "Remove")),
  ])));
}

function showStore(store) {
  const list = [["store", store.uri], ["answers", store.reachable ? `in ${(store.seconds * 1000).toFixed(2)} ms` : `no: ${store.trouble}`, !store.reachable]];
  if (store.policy) list.push(["policy during an outage", store.policy], ["now", store.away ? "unavailable" : "in use", store.away]);
  if (store.table && store.table !== store.uri) list.push(["statistics in", store.table]);
  if (store.keys_max) {
    list.push(["keys", `${whole(store.keys)} of ${whole(store.keys_max)}`, store.keys > store.keys_max * 0.95],
      ["live keys evicted", whole(store.evictions), store.evictions > 0],
      ["recoveries after crashes", whole(store.recoveries)],
      ["memory", `${(store.bytes / 1048576).toFixed(1)} MiB`]);
  }
  for (const host of store.hosts ?? []) list.push([`host ${host.host}`, ago(host.age)]);
  element("store").replaceChildren(...list.flatMap(([name, text, bad]) =>
    [make("dt", name), make("dd", text, bad ? { class: "bad" } : {})]));
}

function draw() {
  const now = history[history.length - 1].time;
  const top = Math.max(1, ...history.map((point) => Math.max(point.allowed, point.denied)));
  const x = (point) => (240 * (1 - (now - point.time) / SECONDS)).toFixed(1);
  const y = (number) => (80 - 76 * number / top).toFixed(1);
  const svg = "http://www.w3.org/2000/svg";
  element("chart").replaceChildren(...["allowed", "denied"].map((kind) => {
    const path = document.createElementNS(svg, "path");
    const points = history.map((point) => `L${x(point)} ${y(point[kind])}`).join("");
    path.setAttribute("d", `M${x(history[0])} 80${points}V80Z`);
    path.setAttribute("class", kind);
    return path;
  }));
  element("chart-top").textContent = `highest: ${rate(top)}/s`;
}

function show(state) {
  const seconds = last ? state.time - last.time : 0;
  if (last && seconds <= 0) return;
  const sums = showLimits(state, seconds);
  showTopClients("denied", "denied", state, seconds);
  showTopClients("allowed", "allowed", state, seconds);
  showRules(state);
  showStore(state.store);
  if (last) {
    history.push({ time: state.time, ...sums });
    while (history[0].time < state.time - SECONDS) history.shift();
    draw();
    element("allowed-rate").textContent = rate(sums.allowed);
    element("denied-rate").textContent = rate(sums.denied);
  }
  last = state;
  const trouble = !state.store.reachable || state.store.away;
  setStatus(trouble ? "the store is unavailable" : `live · ${new Date(state.time * 1000).toLocaleTimeString()}`, trouble);
}

function setStatus(text, bad) {
  element("status").textContent = text;
  element("status").className = bad ? "bad" : "";
}

async function act(action, client, seconds) {
  const message = element("message");
  let error = "";
  let note = "";
  try {
    const answer = await fetch("rules", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
      body: JSON.stringify({ action, client, seconds }),
    });
    if (!answer.ok) error = (await answer.json().catch(() => ({}))).error ?? `refused: ${answer.status}`;
    else if (answer.status === 200) note = (await answer.json()).message;
    if (answer.ok) showRules(await (await fetch("state")).json());
  } catch {
    error = "the server cannot be reached";
  }
  message.textContent = error || note;
  message.hidden = !message.textContent;
  return !error;
}

element("rule").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const seconds = form.elements.seconds.value;
  const action = event.submitter?.value ?? "block";
  if (await act(action, form.elements.client.value, seconds ? Number(seconds) : null)) form.elements.client.value = "";
});

const source = new EventSource("events");
let receivedAt = Date.now();
source.addEventListener("message", (event) => {
  receivedAt = Date.now();
  show(JSON.parse(event.data));
});
source.addEventListener("error", () => {
  if (source.readyState === EventSource.CLOSED) setStatus("access has ended: reload the page", true);
});
setInterval(() => {
  if (Date.now() - receivedAt > 5000 && source.readyState !== EventSource.CLOSED) setStatus("the server does not answer", true);
}, 1000);
