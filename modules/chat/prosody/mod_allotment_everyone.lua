-- The room that every member finds open in the browser. It is made once, is never lost, and is for the organisation's own people alone.

local jid_host = require "prosody.util.jid".host;
local st = require "prosody.util.stanza";

local domain = module:get_option_string("allotment_domain");
local room_jid = "everyone@" .. module.host;

module:hook("muc-occupant-pre-join", function (event)
	if event.room.jid ~= room_jid or jid_host(event.stanza.attr.from) == domain then
		return;
	end
	event.origin.send(st.error_reply(event.stanza, "auth", "registration-required", nil, room_jid));
	return true;
end, 20);

-- Other modules of the component have to be there before its rooms are.
module:hook_global("server-started", function ()
	local muc = module:depends("muc");
	local room = muc.get_room_from_jid(room_jid) or assert(muc.create_room(room_jid));
	room:set_name(module:get_option_string("allotment_name"));
	room:save(true);
end);
