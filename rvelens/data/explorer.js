// The state of the page in its address: what belongs to a tab is replaced as a whole.
window.rvAddress = (state, tab) => {
  const parts = new URLSearchParams(location.search);
  const belongs = key => key !== 'tab' && (key.startsWith('heads.') ? 'heads' : 'ask') === tab;
  [...parts.keys()].filter(belongs).forEach(key => parts.delete(key));
  Object.entries(state).forEach(([key, value]) => parts.set(key, value));
  history.replaceState(history.state, '', '?' + parts);
};
