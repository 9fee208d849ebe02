// Functions by which package browser finds things on a page as people do: by what they read. Each returns "" if the thing is
// not there (yet).
function visible(e) {
  return !!(e.offsetWidth || e.offsetHeight || e.getClientRects().length) && getComputedStyle(e).visibility !== 'hidden';
}
function clean(s) { return (s || '').replace(/\s+/g, ' ').trim(); }
function nameOf(e) {
  if (e.getAttribute('aria-label')) return clean(e.getAttribute('aria-label'));
  const by = e.getAttribute('aria-labelledby');
  if (by) return clean(by.split(' ').map(id => document.getElementById(id)?.textContent).join(' '));
  if (e.labels && e.labels.length) return clean(e.labels[0].innerText);
  return clean(e.innerText || e.value || e.title || e.placeholder);
}
function pick(list, name) {
  const seen = [...list].filter(visible);
  return seen.find(e => nameOf(e) === name) || seen.find(e => nameOf(e).startsWith(name)) || seen.find(e => nameOf(e).includes(name));
}
function fields() { return document.querySelectorAll('input:not([type=hidden]), textarea, select'); }
function shows(text) { return document.readyState === 'complete' && document.body.innerText.includes(text) ? 'yes' : ''; }
function changed(e) {
  e.dispatchEvent(new Event('input', { bubbles: true }));
  e.dispatchEvent(new Event('change', { bubbles: true }));
  return 'yes';
}
function fill(label, value) {
  const e = pick(fields(), label);
  if (!e) return '';
  e.focus();
  e.value = value;
  return changed(e);
}
function choose(label) {
  const box = pick([...fields()].filter(e => e.type === 'radio' || e.type === 'checkbox'), label);
  if (box) { if (!box.checked) box.click(); return 'yes'; }
  for (const s of document.querySelectorAll('select')) {
    const o = [...s.options].find(o => clean(o.textContent) === label);
    if (o) { s.value = o.value; return changed(s); }
  }
  return '';
}
function press(name) {
  const e = pick(document.querySelectorAll('button, input[type=submit], a[href], summary, [role=button]'), name);
  if (!e || e.disabled) return '';
  e.click();
  return 'yes';
}
function address(name) {
  const e = pick(document.querySelectorAll('a[href]'), name);
  return e ? e.href : '';
}
function mark(label) {
  const e = pick(document.querySelectorAll('input[type=file]'), label);
  if (!e) return '';
  e.id = e.id || 'file-of-the-test';
  return '#' + CSS.escape(e.id);
}
function focused() {
  const e = document.activeElement;
  if (!e || e === document.body || e === document.documentElement) return '';
  const style = getComputedStyle(e);
  const seen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0 || style.boxShadow !== 'none';
  return e.tagName.toLowerCase() + ' ' + (nameOf(e) || '(no name)') + (seen ? '' : ' (focus cannot be seen)');
}
