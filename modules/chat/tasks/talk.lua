-- Logs in as the probe, as a chat program does (RFC 6120: STARTTLS, SASL PLAIN, resource binding), sends itself a
-- message and wants it back.

local socket = require "socket";
local ssl = require "ssl";
local mime = require "mime";

local config = dofile("/run/config/probe.lua");

local function fail(...)
	io.stderr:write(string.format(...), "\n");
	os.exit(1);
end

local conn = socket.tcp();
conn:settimeout(30);
assert(conn:connect("127.0.0.1", 5222));

local came = "";

-- expect reads until what came fits the pattern, and returns its captures.
local function expect(what, pattern)
	while true do
		local found = { came:find(pattern) };
		if found[1] then
			came = came:sub(found[2] + 1);
			return table.unpack(found, 3);
		end
		if came:find("<failure", 1, true) or came:find("<stream:error", 1, true) then
			fail("%s: refused: %s", what, came);
		end
		local byte, err = conn:receive(1); -- more would wait for so many
		if not byte then fail("%s: %s", what, err); end
		came = came .. byte;
	end
end

local function send(text)
	local _, err = conn:send(text);
	if err then fail("cannot send: %s", err); end
end

local function open(what)
	send("<?xml version='1.0'?><stream:stream to='" .. config.domain
		.. "' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>");
	expect(what, "</stream:features>");
end

open("stream");
send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
expect("STARTTLS", "<proceed[^>]*>");
conn = assert(ssl.wrap(conn, { mode = "client", protocol = "any", verify = "none", options = "all" }));
conn:settimeout(30);
assert(conn:dohandshake());

open("stream over TLS");
send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>"
	.. mime.b64("\0" .. config.name .. "\0" .. config.password) .. "</auth>");
expect("login", "<success[^>]*>");

open("stream of the account");
send("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
local me = expect("binding", "<jid>([^<]+)</jid>");
send("<presence/>");
local word = "probe" .. os.time() .. tostring({}):match("0x(%x+)"); -- fits itself as a pattern
send("<message type='chat' to='" .. me .. "'><body>" .. word .. "</body><no-store xmlns='urn:xmpp:hints'/></message>");
expect("message", word);
send("</stream:stream>");
conn:close();
