// Starts converse.js as a page of its own for the members of one domain.
fetch('client.json').then((answer) => answer.json()).then((box) => {
  document.title = box.title;
  const here = new URL('.', location.href);
  const socket = new URL('xmpp-websocket', here);
  socket.protocol = here.protocol.replace('http', 'ws');
  converse.initialize({
    allow_registration: false,
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
  });
});
