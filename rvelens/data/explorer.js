// The state of the page in its address: what belongs to a tab is replaced as a whole.
window.rvAddress = (state, tab) => {
  const parts = new URLSearchParams(location.search);
  const owner = key => ['tab', 'profile'].includes(key) ? key : key.startsWith('heads.') ? 'heads' : 'ask';
  const belongs = key => key !== 'tab' && owner(key) === tab;
  [...parts.keys()].filter(belongs).forEach(key => parts.delete(key));
  Object.entries(state).forEach(([key, value]) => parts.set(key, value));
  history.replaceState(history.state, '', '?' + parts);
};
// The fields are filled: show the page, at the tab that the address names.
window.rvReady = () => {
  const wanted = 'tab-' + new URLSearchParams(location.search).get('tab');
  document.documentElement.dataset.rvReady = '';
  [...document.querySelectorAll('[role=tab]')].find(tab => tab.id === wanted)?.click();
};
