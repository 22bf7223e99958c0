// What the console's pages do in a browser. Law: every one of them works without it; text goes into pages as text alone.
"use strict";

const zh = document.body.dataset.language === "zh";
const ACTIONS = {
  down: ["j", "下一条", "next row"],
  up: ["k", "上一条", "row before"],
  open: ["Enter", "打开", "open the row"],
  next: ["n", "下一页", "next page"],
  search: ["/", "搜索", "search"],
  claim: ["c", "认领或释放", "claim or let go"],
  text: ["o", "显示正文", "show the text"],
  prompt: ["p", "显示提问", "show the prompt"],
  comments: ["m", "显示举报说明", "show the comments"],
  unmask: ["u", "显示个人信息", "unmask personal information"],
  hold: ["h", "按住查看", "hold to read"],
  confirm: ["a", "判定成立", "confirm"],
  reject: ["r", "判定不成立", "reject"],
  skip: ["s", "跳过", "skip"],
  undo: ["z", "撤销", "undo"],
  guide: ["g", "审核指引", "guideline"],
  similar: ["i", "相似案件", "similar cases"],
  help: ["?", "快捷键", "these keys"],
};
const FIXED = [
  ["1 – 4", "选用理由", "a prepared reason"],
  ["Ctrl Enter", "提交", "send the form"],
  ["Esc", "离开输入框", "leave a field"],
];

const own = JSON.parse(document.body.dataset.keys || "{}");
const keyOf = (name) => own[name] || ACTIONS[name][0];
const find = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function editable(node) {
  return node instanceof HTMLElement && (node.isContentEditable || node.matches("textarea, select, input:not([type=checkbox]):not([type=radio])"));
}

// ---- rows

function move(step) {
  const rows = all("[data-row]");
  if (!rows.length) return;
  const now = rows.findIndex((row) => row.contains(document.activeElement));
  const to = rows[Math.min(rows.length - 1, Math.max(0, now < 0 ? (step > 0 ? 0 : rows.length - 1) : now + step))];
  (find("a[href], button, input", to) || to).focus();
  to.scrollIntoView({ block: "nearest" });
}

function act(name) {
  if (name === "down" || name === "up") return move(name === "down" ? 1 : -1);
  if (name === "help") return help();
  const node = find(`[data-key-for~="${name}"]:not([disabled])`);
  if (!node) return false;
  if (node.matches("textarea, input[type=search], input[type=text]")) node.focus();
  else {
    node.click();
    const then = node.dataset.then && find(node.dataset.then);
    if (then) then.focus();
  }
  return true;
}

function help() {
  const dialog = find("#help");
  if (!dialog || dialog.open) return;
  const list = find("[data-help-list]", dialog);
  list.replaceChildren();
  const rows = Object.keys(ACTIONS).map((name) => [keyOf(name), ACTIONS[name][1], ACTIONS[name][2]]);
  for (const [key, chinese, english] of [...rows, ...FIXED]) {
    const dt = document.createElement("dt");
    const kbd = document.createElement("kbd");
    kbd.textContent = key;
    dt.append(kbd);
    const dd = document.createElement("dd");
    dd.textContent = zh ? chinese : english;
    list.append(dt, dd);
  }
  dialog.showModal();
}

document.addEventListener("keydown", (event) => {
  // While an input method composes, a key is a part of a word.
  if (event.isComposing || event.keyCode === 229) return;
  const field = editable(event.target);
  if (field && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    event.target.form?.requestSubmit();
    return;
  }
  if (field && event.key === "Escape") {
    event.target.blur();
    find("#main")?.focus();
    return;
  }
  if (field || event.ctrlKey || event.metaKey || event.altKey || find("dialog[open]")) return;
  if (event.key === keyOf("hold")) {
    document.body.classList.add("holding");
    return;
  }
  if (/^[1-9]$/.test(event.key)) {
    const reason = all("[data-reason]").filter((one) => !one.closest("[hidden]"))[Number(event.key) - 1];
    if (reason) {
      event.preventDefault();
      reason.click();
    }
    return;
  }
  const name = Object.keys(ACTIONS).find((one) => keyOf(one) === event.key);
  if (!name || name === "open") return; // Enter follows the link that has the focus by itself
  if (act(name) !== false) event.preventDefault();
});
document.addEventListener("keyup", (event) => {
  if (event.key === keyOf("hold")) document.body.classList.remove("holding");
});
window.addEventListener("blur", () => document.body.classList.remove("holding"));

// ---- clicks

document.addEventListener("click", (event) => {
  const node = event.target instanceof Element ? event.target.closest("[data-help], [data-reason], [data-dialog], [data-all]") : null;
  if (!node) return;
  if (node.matches("[data-help]")) help();
  else if (node.matches("[data-dialog]")) find(node.dataset.dialog)?.showModal();
  else if (node.matches("[data-all]")) all("input[type=checkbox]", node.closest("form")).forEach((box) => (box.checked = node.checked));
  else {
    const field = find("textarea[name=reason]", node.closest("form"));
    field.value = field.value.trim() ? `${field.value.trim()}；${node.dataset.reason}` : node.dataset.reason;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.focus();
  }
});

// Prepared reasons, and fields, belong to one decision.
function decided() {
  for (const form of all("form[data-decision]")) {
    const chosen = find("input[name=decision]:checked", form)?.value || "";
    for (const part of all("[data-for]", form)) {
      const on = part.dataset.for.split(" ").includes(chosen);
      part.hidden = !on;
      for (const field of all("input, textarea, select", part)) field.disabled = !on;
    }
  }
}
document.addEventListener("change", decided);

// ---- words that were typed stay until they were sent

function drafts() {
  for (const done of all("[data-sent]")) {
    sessionStorage.removeItem(`draft ${done.dataset.sent}`);
    done.removeAttribute("data-sent"); // once: what is typed from now on is another reason
  }
  // Loaded again, this page has nothing that was just sent.
  if (location.search === "?sent=1") history.replaceState(null, "", location.pathname);
  for (const field of all("textarea[data-draft]")) {
    const name = `draft ${field.dataset.draft}`;
    if (!field.value) field.value = sessionStorage.getItem(name) || "";
    field.addEventListener("input", () => sessionStorage.setItem(name, field.value));
  }
}

// ---- ten seconds

function undoable() {
  for (const bar of all("[data-seconds]")) {
    let left = Number(bar.dataset.seconds);
    const said = find("[data-left]", bar);
    const timer = setInterval(() => {
      left -= 1;
      if (said) said.textContent = String(Math.max(0, left));
      if (left <= 0) {
        clearInterval(timer);
        bar.remove();
      }
    }, 1000);
  }
}

// ---- plots

// The clock of the pages is that of Shanghai (UTC+8), as everywhere in the console.
function stamp(seconds, day) {
  const said = new Date((seconds + 8 * 3600) * 1000).toISOString();
  return day ? said.slice(5, 10) : `${said.slice(5, 10)} ${said.slice(11, 16)}`;
}

function plots() {
  for (const place of all("[data-plot]:not([data-drawn])")) {
    if (typeof uPlot === "undefined") return;
    place.dataset.drawn = "1";
    const plot = JSON.parse(place.dataset.plot);
    const ink = getComputedStyle(place).color;
    const faint = getComputedStyle(place).getPropertyValue("--line").trim();
    const axis = { stroke: ink, grid: { stroke: faint, width: 1 }, ticks: { stroke: faint } };
    const bars = plot.bars ? { paths: uPlot.paths.bars({ size: [0.7, 60] }), points: { show: false } } : { points: { show: plot.points ?? false } };
    const days = plot.data[0].length > 1 && plot.data[0][1] - plot.data[0][0] >= 86000;
    const category = !plot.labels ? { values: (_, marks) => marks.map((mark) => stamp(mark, days)), space: days ? 60 : 90 } : plot.labels ? { values: (_, marks) => marks.map((mark) => plot.labels[mark] ?? ""), incrs: [1, 2, 5, 10] } : {};
    new uPlot(
      {
        width: Math.max(240, place.clientWidth),
        height: 200,
        scales: { x: { time: !plot.labels && !plot.plain, range: plot.labels ? [-0.6, plot.labels.length - 0.4] : undefined }, y: { range: (_, low, high) => [0, Math.max(plot.top || 1, high * 1.05)] } },
        legend: { show: plot.series.length > 1 },
        cursor: { show: true },
        axes: [{ ...axis, ...category }, { ...axis, size: 46 }],
        series: [{ label: zh ? "时间" : "time", value: (_, v) => (v == null ? "-" : plot.labels ? plot.labels[v] : stamp(v, days)) }, ...plot.series.map((one, at) => ({ label: one, stroke: ["#2b7bb9", "#c05621", "#3f8f5b", "#8a5bb5"][at % 4], fill: plot.bars ? "#2b7bb955" : undefined, width: 2, ...bars }))],
      },
      plot.data,
      place,
    );
  }
}

function ready() {
  decided();
  drafts();
  plots();
}
undoable();
ready();
document.addEventListener("htmx:after:swap", ready);
document.addEventListener("htmx:error", () => {
  const live = find("#live");
  if (live) live.textContent = zh ? "网络或服务异常，请重试；所填内容仍在。" : "Nobody answers; try again. What you typed is still here.";
});
