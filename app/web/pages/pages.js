// The users' pages with a script: copying, marking a part of the answer, and what a chatbot's page hands to a frame.
// Law: without it the pages do all that they must. A frame believes only its parent, and that only from a site that the server names.
"use strict";

const form = document.getElementById("form");
const field = (name) => form && form.elements.namedItem(name);

for (const button of document.querySelectorAll("[data-copy]")) {
  const copied = () => { button.textContent = button.dataset.copied; };
  button.hidden = false;
  button.addEventListener("click", () => {
    const shown = document.getElementById(button.dataset.copy);
    // Over plain HTTP there is no clipboard: what is selected is copied by hand.
    getSelection().selectAllChildren(shown);
    if (navigator.clipboard) navigator.clipboard.writeText(shown.textContent).then(copied, () => {});
  });
}

const select = document.querySelector("[data-select]");
if (select) {
  const text = field("text");
  const marked = () => text.value.slice(text.selectionStart, text.selectionEnd).trim();
  const look = () => { select.hidden = !marked(); };
  for (const event of ["select", "keyup", "mouseup"]) text.addEventListener(event, look);
  document.addEventListener("selectionchange", look);
  select.addEventListener("click", () => { field("quote").value = marked(); field("quote").focus(); });
}

// A browser lets nothing in a frame of another origin focus itself; a script may.
document.querySelector("[data-focus]")?.focus();

if (window.parent !== window) {
  const origins = (document.body.dataset.origins || "").split(" ").filter(Boolean);
  // These words hold nothing of the visitor's, so whoever frames the page may hear them.
  const tell = (word) => window.parent.postMessage({ sluice: word }, "*");
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tell("close"); });
  const fresh = "fresh" in document.body.dataset && field("text") && field("receipt");
  if (fresh) {
    let waiting = true;
    window.addEventListener("message", (event) => {
      const said = event.data;
      if (!waiting || event.source !== window.parent || !origins.includes(event.origin)) return;
      if (!said || said.sluice !== "report" || typeof said.text !== "string") return;
      waiting = false;
      field("text").value = said.text;
      if (typeof said.decision === "string") field("decision_id").value = said.decision;
      if (typeof said.receipt === "string" && said.receipt) {
        field("receipt").value = said.receipt;
        // A receipt is of exactly this text.
        for (const name of ["text", "decision_id", "receipt"]) field(name).readOnly = true;
      }
      document.querySelector(".handed").hidden = false;
      document.querySelector("details").open = Boolean(field("decision_id").value);
      (field("category") || field("text")).focus();
    });
    tell("ready");
  }
}
