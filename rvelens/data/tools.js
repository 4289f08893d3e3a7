// What is taken away from the page: code by the clipboard, files by the server.
element.addEventListener('click', async event => {
  const tool = event.target.closest('[data-tool]');
  if (!tool) return;
  if (tool.dataset.tool !== 'python') return trigger('select', {kind: tool.dataset.tool});
  const words = tool.textContent, code = element.querySelector('pre').textContent;
  try {
    await navigator.clipboard.writeText(code);
    tool.textContent = 'Copied';
  } catch {  // a browser that forbids it: the code is marked, to be copied by hand
    element.querySelector('details').open = true;
    getSelection().selectAllChildren(element.querySelector('pre'));
    tool.textContent = 'Marked below';
  }
  setTimeout(() => { tool.textContent = words; }, 1500);
});
