// Starts converse.js as a page of its own for the members of one domain. Whoever is logged in to the box's portal is logged in here.
const sso = '/.well-known/allotment/sso/';

// login is what converse.js needs to know of whoever is logged in to the portal: nothing where there is none, and then it asks.
async function login(domain) {
  const answer = await fetch(`${sso}credentials?module=chat`);
  if (answer.status === 401) {
    location = `${sso}login?to=${encodeURIComponent(location.pathname)}`;
    await new Promise(() => {}); // this page is left
  }
  if (!answer.ok) {
    return {};
  }
  const { person, password } = await answer.json();
  return {
    allow_logout: false,
    auto_join_rooms: [{ jid: `everyone@rooms.${domain}`, nick: person }],
    auto_login: true,
    jid: `${person}@${domain}`,
    password,
  };
}

// Converse.js's own footer fetches pictures of its sponsors from elsewhere, by which they would learn who chats here.
customElements.define('converse-footer', class extends HTMLElement {});

async function start() {
  const box = await (await fetch('client.json')).json();
  document.title = box.title;
  const here = new URL('.', location.href);
  const socket = new URL('xmpp-websocket', here);
  socket.protocol = here.protocol.replace('http', 'ws');
  converse.initialize({
    allow_registration: false,
    allowed_audio_domains: [here.hostname], // others' media would tell its servers who looks; they stay links
    allowed_image_domains: [here.hostname],
    allowed_video_domains: [here.hostname],
    assets_path: new URL('dist/', here).pathname,
    authentication: 'login',
    auto_join_on_invite: true,
    bosh_service_url: new URL('http-bind', here).href,
    discover_connection_methods: false,
    domain_placeholder: box.domain,
    i18n: box.language.replace('-', '_'),
    loglevel: 'error',
    locked_domain: box.domain,
    locked_muc_domain: 'hidden',
    muc_domain: `rooms.${box.domain}`,
    view_mode: 'fullscreen',
    websocket_url: socket.href,
    ...await login(box.domain),
  });
}

start();
