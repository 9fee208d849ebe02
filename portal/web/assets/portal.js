// What pages can do only with a script: passkeys, copying, printing. Everything else works without it.
"use strict";

const bytes = text => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), c => c.charCodeAt(0));
const text = buffer => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");

// Options of the server have bytes as base64url; the browser wants them as bytes (WebAuthn level 3, section 5.1).
function options(o) {
  o.challenge = bytes(o.challenge);
  if (o.user) o.user.id = bytes(o.user.id);
  for (const list of [o.allowCredentials, o.excludeCredentials]) for (const c of list || []) c.id = bytes(c.id);
  return o;
}

function answer(credential) {
  const response = {};
  for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"])
    if (credential.response[name]) response[name] = text(credential.response[name]);
  if (credential.response.getTransports) response.transports = credential.response.getTransports();
  return { id: credential.id, rawId: text(credential.rawId), type: credential.type, response,
    authenticatorAttachment: credential.authenticatorAttachment, clientExtensionResults: credential.getClientExtensionResults() };
}

async function post(address, token, body) {
  const r = await fetch(address, { method: "POST", headers: { "Content-Type": "application/json", "X-Form-Token": token }, body: JSON.stringify(body) });
  if (!r.ok) throw new Error(r.status);
  return r.json();
}

// A form with data-passkey="create" or "get" asks the address in data-begin for options, the device for a passkey, and
// sends it as the field "credential", with the other fields.
async function passkey(form) {
  const say = form.querySelector("[role=status]");
  say.textContent = "";
  const fields = Object.fromEntries(new FormData(form));
  try {
    const o = await post(form.dataset.begin, fields.form_token, fields);
    const publicKey = options(o.publicKey);
    const credential = form.dataset.passkey === "create"
      ? await navigator.credentials.create({ publicKey }) : await navigator.credentials.get({ publicKey });
    form.querySelector("[name=credential]").value = JSON.stringify(answer(credential));
    if (o.ceremony) form.querySelector("[name=ceremony]").value = o.ceremony;
    form.submit();
  } catch (e) {
    say.textContent = e.name === "NotAllowedError" ? form.dataset.cancelled : form.dataset.failed;
  }
}

for (const form of document.querySelectorAll("form[data-passkey]")) {
  if (!window.PublicKeyCredential) continue;
  form.hidden = false;
  form.addEventListener("submit", e => { e.preventDefault(); passkey(form); });
}
for (const b of document.querySelectorAll("button[data-copy]")) {
  b.hidden = !navigator.clipboard;
  b.addEventListener("click", async () => {
    await navigator.clipboard.writeText(b.dataset.copy);
    b.textContent = b.dataset.copied;
  });
}
for (const b of document.querySelectorAll("button[data-print]")) {
  b.hidden = false;
  b.addEventListener("click", () => window.print());
}
