-- milter.lua - one session as miltertest (OpenDKIM) plays an MTA: a copy that passes, one that is
-- held, one of two held, a tag. Run by test_milter.py, whose policy goes by recipients' names.

local conn = mt.connect(socket)
if conn == nil then
	error("cannot connect to " .. socket)
end

local function must(rc, what)
	if rc ~= nil then
		error(what .. " failed: " .. tostring(rc))
	end
end

local function reply(expected, what)
	if mt.getreply(conn) ~= expected then
		error(what .. ": unexpected reply " .. tostring(mt.getreply(conn)))
	end
end

local function message(n, ...)
	must(mt.macro(conn, SMFIC_MAIL, "i", "LUA" .. n), "macro")
	must(mt.mailfrom(conn, "<someone@sender.example>"), "MAIL")
	for _, recipient in ipairs({ ... }) do
		must(mt.rcptto(conn, recipient), "RCPT")
	end
	must(mt.header(conn, "From", " someone@sender.example"), "From")
	must(mt.header(conn, "Subject", " from miltertest"), "Subject")
	must(mt.header(conn, "Message-ID", " <lua" .. n .. "@sender.example>"), "Message-ID")
	must(mt.eoh(conn), "end of header")
	must(mt.bodystring(conn, "Message " .. n .. " of miltertest, unlike every other one.\r\n"), "body")
	must(mt.eom(conn), "end of message")
end

must(mt.conninfo(conn, "mx.client.example", "192.0.2.7"), "connection")
must(mt.helo(conn, "mx.client.example"), "HELO")

message(1, "<b@rcpt.example>")
reply(SMFIR_CONTINUE, "a plain message")

message(2, "<held-lua@rcpt.example>")
reply(SMFIR_DISCARD, "a held copy")

message(3, "<b@rcpt.example>", "<held-lua@rcpt.example>")
reply(SMFIR_CONTINUE, "one of two held")
if not mt.eom_check(conn, MT_RCPTDELETE, "<held-lua@rcpt.example>") then
	error("the held recipient was not removed")
end

message(4, "<tagged@rcpt.example>")
reply(SMFIR_CONTINUE, "a tagged message")
if not mt.eom_check(conn, MT_HDRADD, "X-Breakwater") then
	error("no X-Breakwater field")
end

mt.disconnect(conn)
