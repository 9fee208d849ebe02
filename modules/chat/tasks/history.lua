-- Saves and proves the database of messages, while Prosody goes on: history.lua dump|verify|restore|compare|check|export

local DBI = require "DBI";

local live, dump = "/var/lib/history/prosody.sqlite", "/var/lib/dump/prosody.sqlite";

local function fail(...)
	io.stderr:write(string.format(...), "\n");
	os.exit(1);
end

local function open(path)
	local file = io.open(path, "rb");
	if not file then fail("there is no %s", path); end
	file:close();
	local db = assert(DBI.Connect("SQLite3", path));
	db:autocommit(true);
	return db;
end

-- rows runs a statement and returns its rows.
local function rows(db, sql, ...)
	local statement = assert(db:prepare(sql));
	assert(statement:execute(...));
	local all = {};
	for row in statement:rows(false) do
		local copy = {};
		for i = 1, #row do copy[i] = row[i]; end
		all[#all + 1] = copy;
	end
	statement:close();
	return all;
end

-- check wants SQLite's own test of pages and indexes to find nothing.
local function check(path)
	local found = rows(open(path), "PRAGMA integrity_check")[1][1];
	if found ~= "ok" then fail("%s is damaged: %s", path, found); end
end

local function tables(db, schema)
	return rows(db, "SELECT name, sql FROM " .. schema
		.. ".sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name");
end

local function count(db, name)
	return rows(db, 'SELECT count(*) FROM "' .. name .. '"')[1][1];
end

local actions = {};

function actions.dump()
	os.remove(dump);
	rows(open(live), "VACUUM INTO '" .. dump .. "'");
end

function actions.verify() check(dump); end
function actions.check() check(live); end

-- restore puts the dump's rows in place of those that are there, in one transaction.
function actions.restore()
	check(dump);
	local db = assert(DBI.Connect("SQLite3", live));
	db:autocommit(true);
	rows(db, "PRAGMA busy_timeout = 30000");
	rows(db, "ATTACH '" .. dump .. "' AS saved");
	rows(db, "BEGIN IMMEDIATE");
	for _, t in ipairs(tables(db, "saved")) do
		local name, sql = t[1], t[2];
		if #rows(db, "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?", name) == 0 then
			rows(db, sql);
		end
		rows(db, 'DELETE FROM main."' .. name .. '"');
		rows(db, 'INSERT INTO main."' .. name .. '" SELECT * FROM saved."' .. name .. '"');
	end
	rows(db, "COMMIT");
end

-- compare wants the restored database to be sound and to have all that the dump has.
function actions.compare()
	check(live);
	local restored, saved = open(live), open(dump);
	for _, t in ipairs(tables(saved, "main")) do
		local want, have = count(saved, t[1]), count(restored, t[1]);
		if have < want then fail("table %s has %d rows of %d", t[1], have, want); end
	end
end

-- text is a string as JSON has it (RFC 8259).
local function text(s)
	return '"' .. tostring(s or ""):gsub('[%c"\\\127]', function (c) return ("\\u%04x"):format(c:byte()); end) .. '"';
end

-- export writes the messages of the dump as JSON: of each account or room, when which stanza came from or went to whom.
function actions.export()
	local path = "/var/lib/dump/messages.json";
	local file = assert(io.open(path .. ".new", "w"));
	local separator = "[\n";
	for _, row in ipairs(rows(open(dump), [[SELECT "host", "user", "store", "when", "with", "value" FROM prosodyarchive ORDER BY sort_id]])) do
		assert(file:write(separator, ('{"host":%s,"of":%s,"kind":%s,"time":%s,"with":%s,"stanza":%s}'):format(
			text(row[1]), text(row[2]), text(row[3]), text(os.date("!%Y-%m-%dT%H:%M:%SZ", row[4] // 1 | 0)), text(row[5]), text(row[6]))));
		separator = ",\n";
	end
	assert(file:write(separator == "[\n" and "[]\n" or "\n]\n"));
	assert(file:close());
	assert(os.rename(path .. ".new", path));
end

local action = actions[arg[1]] or fail("no such action as %s", tostring(arg[1]));
local ok, err = pcall(action);
if not ok then fail("%s", err); end
