-- Ends the sessions of whoever may not use the chat any more. A member's password is asked for when she logs in, and not again
-- while her program stays connected.

local seconds = module:get_option_period("allotment_look", 30);

local function leave(username)
	module:log("info", "%s may not use the chat any more", username);
	prosody.events.fire_event("user-disabled", { username = username, host = module.host });
end

module:add_timer(seconds, function ()
	local host = prosody.hosts[module.host];
	local online = {};
	for username in pairs(host.sessions) do
		table.insert(online, username);
	end
	for _, username in ipairs(online) do
		local found, problem = host.modules.auth_ldap.get_user(username);
		if not found and not problem then -- a directory that does not answer ends nothing
			leave(username);
		end
	end
	return seconds;
end);
