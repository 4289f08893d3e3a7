// The map and the list of heads: a click on one, or a drag over several of the map.
let from = null, to = null;
const head = event => document.elementFromPoint(event.clientX, event.clientY)?.closest('[data-head]');
const place = one => one.dataset.head.split('.').map(Number);
const mark = () => element.querySelectorAll('.rv-map [data-head]').forEach(one => {
  const at = place(one), inside = from && to && from !== to && [0, 1].every(n => {
    const ends = [place(from)[n], place(to)[n]];
    return at[n] >= Math.min(...ends) && at[n] <= Math.max(...ends);
  });
  one.classList.toggle('brushed', Boolean(inside));
});
element.addEventListener('pointerdown', event => {
  from = event.target.closest('.rv-map [data-head]');
  to = from;
  if (from) event.preventDefault();
});
element.addEventListener('pointermove', event => {
  const over = from && head(event);
  if (over && over !== to && element.contains(over)) { to = over; mark(); }
});
element.addEventListener('pointerup', () => {
  if (from && to && from !== to) trigger('edit', {first: from.dataset.head, last: to.dataset.head});
  setTimeout(() => { from = to = null; mark(); });
});
element.addEventListener('pointercancel', () => { from = to = null; mark(); });
element.addEventListener('click', event => {
  const hit = event.target.closest('[data-head]');
  if (hit && (!from || from === to)) trigger('select', {value: hit.dataset.head});
});
