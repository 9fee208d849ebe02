// Whoever is logged in to the box's portal need not log in to this page again: the gateway says with each request who is asking.
// The page itself wants a name all the same, and sends it with a password that nobody looks at.
const sso = '/.well-known/allotment/sso/';

window.addEventListener('load', async () => {
  const answer = await fetch(`${sso}credentials?module=calendar`);
  if (answer.status === 401) {
    location = `${sso}login?to=${encodeURIComponent(location.pathname)}`;
    return;
  }
  if (!answer.ok) {
    return; // there is no portal, or it does not answer: the page asks for name and password
  }
  const { person } = await answer.json();
  const form = document.querySelector('#loginscene [data-name=form]');
  form.querySelector('[data-name=user]').value = person;
  form.querySelector('[data-name=password]').value = 'by the gateway';
  form.requestSubmit();
  document.querySelector('#logoutview [data-name=logout]').addEventListener('click', () => {
    location = `${sso}logout`;
  });
});
