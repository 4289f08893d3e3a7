// The answers of the tab Ask: pointing at a word, sliders, a box drawn on a picture.
const root = () => element.querySelector('.rv-trace');
const choose = step => {
  const trace = root(), slider = element.querySelector('[data-slide="step"]');
  if (!trace || step === trace.dataset.step) return;
  trace.dataset.step = step;
  element.querySelectorAll('.rv-columns [data-step]').forEach(one =>
    one.classList.toggle('on', one.dataset.step === step));
  slider.value = step;
  slider.nextElementSibling.textContent = (+step + 1) + ' of ' + (+slider.max + 1);
  window.rvAddress({step});
};
const look = more => {
  const pressed = element.querySelector('[data-show][aria-pressed="true"]');
  const view = {
    layer: +element.querySelector('[data-slide="layer"]').value,
    step: +root().dataset.step, show: pressed.dataset.show, ...more};
  trigger('select', view);
};
const word = event => event.target.closest('.rv-words [data-step]');
['pointerover', 'focusin', 'click'].forEach(kind => element.addEventListener(kind, event => {
  if (word(event)) choose(word(event).dataset.step);
}));
element.addEventListener('keydown', event => {
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (!word(event) || !step) return;
  const words = [...word(event).parentElement.children];
  const next = words[words.indexOf(word(event)) + step];
  if (next) { event.preventDefault(); next.focus(); }
});
element.addEventListener('input', event => {
  const kind = event.target.dataset.slide;
  if (kind === 'step') choose(event.target.value);
  if (kind !== 'layer') return;
  const name = +event.target.value < 0 ? 'all layers' : 'layer ' + event.target.value;
  event.target.nextElementSibling.textContent = name;
  event.target.setAttribute('aria-valuetext', name);
});
element.addEventListener('change', event => {
  if (event.target.dataset.slide === 'layer') look({});
});
element.addEventListener('click', event => {
  const show = event.target.closest('[data-show]'), draw = event.target.closest('[data-draw]');
  if (show) look({show: show.dataset.show});
  if (draw) {
    const on = draw.getAttribute('aria-pressed') !== 'true';
    draw.setAttribute('aria-pressed', on);
    root().toggleAttribute('data-drawing', on);
  }
});
let drawn = null;
const share = (event, frame) => [
  (event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height,
].map(x => Math.min(Math.max(x, 0), 1));
element.addEventListener('pointerdown', event => {
  const shot = event.target.closest('[data-drawing] .rv-shot');
  if (!shot) return;
  event.preventDefault();
  const frame = shot.getBoundingClientRect(), box = document.createElement('i');
  box.className = 'rv-region';
  shot.append(box);
  drawn = {frame, box, from: share(event, frame)};
  shot.setPointerCapture(event.pointerId);
});
const corners = event => {
  const to = share(event, drawn.frame), at = [0, 1].map(n => Math.min(drawn.from[n], to[n]));
  return [...at, ...[0, 1].map(n => Math.max(drawn.from[n], to[n]))];
};
element.addEventListener('pointermove', event => {
  if (!drawn) return;
  const [x0, y0, x1, y1] = corners(event).map(x => 100 * x);
  drawn.box.style.cssText =
    'left:' + x0 + '%;top:' + y0 + '%;width:' + (x1 - x0) + '%;height:' + (y1 - y0) + '%';
});
['pointerup', 'pointercancel'].forEach(kind => element.addEventListener(kind, event => {
  if (!drawn) return;
  const [x0, y0, x1, y1] = corners(event);
  if (kind === 'pointercancel' || (x1 - x0) * (y1 - y0) < 0.0005) drawn.box.remove();
  else trigger('edit', {box: [x0, y0, x1, y1]});
  drawn = null;
}));
// The address follows what the server shows. Gradio may put new attributes on the elements of the last
// answers, so each has a number, and what a person did to them is taken back.
let last = null;
new MutationObserver(() => {
  const trace = root();
  if (!trace || trace.dataset.number === last) return;
  last = trace.dataset.number;
  window.rvAddress(Object.fromEntries(new URLSearchParams(trace.dataset.link)), 'ask');
  trace.removeAttribute('data-drawing');
  for (const slider of element.querySelectorAll('[data-slide]')) slider.value = slider.defaultValue;
}).observe(element, {subtree: true, childList: true, attributeFilter: ['data-number']});
