// A button "report this answer" after every answer of a chatbot's page that says by which decision it came (docs/embed.md):
//   <script src="https://gateway/sluice/report.js" data-app="chat" data-lang="zh" defer></script>
//   <div data-sluice-decision="slc_…" data-sluice-receipt="r1.…">…</div>
// Law: the page's own policy needs script-src and frame-src for the gateway and nothing else: no inline style, no markup made of text. An
// answer is handed to the gateway's frame alone, once the frame has said that it is there, and sent only when the person presses Send.
(() => {
  "use strict";
  const script = document.currentScript;
  const base = new URL(".", script.src);
  const { app = "", lang = document.documentElement.lang } = script.dataset;
  const zh = !lang || lang.toLowerCase().startsWith("zh");
  const say = zh
    ? { report: "举报此回答", title: "举报回答", close: "关闭", open: "表单没有出现？在新窗口打开" }
    : { report: "Report this answer", title: "Report an answer", close: "Close", open: "No form here? Open it in a new window" };
  const MARK = "data-sluice-decision";
  const PATIENCE = 4000; // milliseconds until a way out is shown

  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`
    .sluice-report { font: inherit; font-size: .8125rem; line-height: 1.4; color: inherit; opacity: .75; background: none; cursor: pointer;
      border: 1px solid currentColor; border-radius: .3rem; padding: .1rem .5rem; margin: .25rem 0; }
    .sluice-report:hover, .sluice-report:focus-visible { opacity: 1; }
    .sluice-report:focus-visible, .sluice-dialog button:focus-visible { outline: 3px solid #2f7fd6; outline-offset: 2px; }
    .sluice-dialog { color-scheme: light dark; width: min(40rem, 100vw); max-width: 100vw; height: min(46rem, 100dvh); max-height: 100dvh;
      padding: 0; margin: auto; border: 1px solid #868f99; border-radius: .5rem; overflow: hidden; background: Canvas; color: CanvasText; }
    .sluice-dialog[open] { display: flex; flex-direction: column; }
    .sluice-dialog::backdrop { background: rgb(0 0 0 / .45); }
    .sluice-dialog > div { display: flex; justify-content: flex-end; padding: .35rem .5rem; border-bottom: 1px solid #868f9966;
      font: 1rem/1.5 system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; }
    .sluice-dialog button { font: inherit; color: inherit; background: none; border: 0; border-radius: .3rem; padding: .3rem .75rem; cursor: pointer; }
    .sluice-dialog iframe { flex: 1; width: 100%; min-height: 0; border: 0; }
    .sluice-dialog > a { padding: .5rem 1.25rem; font: .875rem/1.5 system-ui, sans-serif; }
    .sluice-dialog [hidden] { display: none; }
  `);
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];

  const made = (name, values = {}) => Object.assign(document.createElement(name), values);
  const address = (embed) => {
    const url = new URL("report", base);
    if (app) url.searchParams.set("app", app);
    url.searchParams.set("lang", zh ? "zh" : "en");
    if (embed) url.searchParams.set("embed", "1");
    return url.href;
  };

  const open = (answer, button) => {
    const dialog = made("dialog", { className: "sluice-dialog", lang: zh ? "zh-CN" : "en" });
    dialog.setAttribute("aria-label", say.title);
    const bar = made("div");
    const close = made("button", { type: "button", textContent: say.close });
    bar.append(close);
    const frame = made("iframe", { title: say.title, allow: "clipboard-write", referrerPolicy: "no-referrer", src: address(true) });
    const way = made("a", { href: address(false), target: "_blank", rel: "noopener noreferrer", textContent: say.open, hidden: true });
    dialog.append(bar, frame, way);
    const late = setTimeout(() => { way.hidden = false; }, PATIENCE);
    let handed = false;
    const hear = (event) => {
      if (event.source !== frame.contentWindow || event.origin !== base.origin || !event.data) return;
      if (event.data.sluice === "close") dialog.close();
      if (event.data.sluice === "ready") {
        clearTimeout(late);
        way.hidden = true;
        if (handed) return;
        handed = true;
        frame.focus();
        frame.contentWindow.postMessage({ sluice: "report", ...said(answer) }, base.origin);
      }
    };
    window.addEventListener("message", hear);
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      clearTimeout(late);
      window.removeEventListener("message", hear);
      dialog.remove();
      button.focus();
    });
    document.body.append(dialog);
    dialog.showModal();
  };

  // The text as the model delivered it, where the page says so: what is shown may have lost its marks.
  const said = (answer) => ({
    decision: answer.getAttribute(MARK) || "",
    receipt: answer.dataset.sluiceReceipt || "",
    text: answer.dataset.sluiceText ?? answer.innerText,
  });

  const buttons = new Map();
  const look = () => {
    for (const [answer, button] of buttons) {
      if (answer.isConnected && answer.hasAttribute(MARK)) continue;
      button.remove();
      buttons.delete(answer);
    }
    for (const answer of document.querySelectorAll(`[${MARK}]`)) {
      const known = buttons.get(answer);
      if (known && known.previousElementSibling === answer) continue;
      const button = known || made("button", { type: "button", className: "sluice-report", textContent: say.report, lang: zh ? "zh-CN" : "en" });
      if (!known) button.addEventListener("click", () => open(answer, button));
      buttons.set(answer, button);
      answer.after(button);
    }
  };
  // Once a frame: a streamed answer changes with every word.
  let due = false;
  const soon = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; look(); });
  };
  new MutationObserver(soon).observe(document.documentElement, { childList: true, subtree: true, attributes: true, attributeFilter: [MARK] });
  look();
})();
