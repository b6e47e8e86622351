-- Takes the packets of `convoy trace --write` apart, for Wireshark and tshark (4.0 or later, or 3.x with Lua 5.2).
--
-- Put this file into Wireshark's folder for personal plugins (Help, About, Folders), or name it:
--   wireshark -X lua_script:convoy.lua trace.pcapng
--   tshark -X lua_script:convoy.lua -r trace.pcapng -Y 'convoy.event == 3 && convoy.length > 1000'
--
-- What a packet holds is written down in docs/debugging.md; the numbers are those of runtime/src/trace/wire.rs.

local convoy = Proto("convoy", "Convoy stream events")

local VERSION = 1
local HEAD = 84

local events = {
    [1] = "name", [2] = "open", [3] = "sent", [4] = "received", [5] = "switch", [6] = "followed", [7] = "credit",
    [8] = "demote", [9] = "close", [10] = "reset", [11] = "kernel sent", [12] = "kernel received",
}
local SENT, RECEIVED, SWITCH, FOLLOWED, CREDIT, DEMOTE, CLOSE, RESET = 3, 4, 5, 6, 7, 8, 9, 10
local KERNEL_SENT = 11
local kinds = { [0] = "none", [1] = "pad", [2] = "data", [3] = "block" }
local paths = { [0] = "kernel", [1] = "channel" }
-- The slot of events that are about a whole channel.
local NO_SLOT = 0xffffff

local f = convoy.fields
f.version = ProtoField.uint8("convoy.version", "Version")
f.event = ProtoField.uint8("convoy.event", "Event", base.DEC, events)
f.kind = ProtoField.uint8("convoy.kind", "Frame", base.DEC, kinds)
f.path = ProtoField.uint8("convoy.path", "Path", base.DEC, paths)
f.unread = ProtoField.bool("convoy.unread", "Unread bytes dropped")
f.outgoing = ProtoField.bool("convoy.outgoing", "By this end as a sender")
f.pid = ProtoField.uint32("convoy.pid", "Process")
f.thread = ProtoField.uint32("convoy.thread", "Thread")
f.channel = ProtoField.uint32("convoy.channel", "Channel")
f.slot = ProtoField.uint32("convoy.slot", "Slot")
f.generation = ProtoField.uint8("convoy.generation", "Generation")
f.descriptor = ProtoField.uint16("convoy.fd", "Descriptor")
f.position = ProtoField.uint64("convoy.position", "Position")
f.length = ProtoField.uint32("convoy.length", "Length")
f.number = ProtoField.uint32("convoy.switch", "Number of the switch")
f.localaddress = ProtoField.string("convoy.local", "Local address")
f.localport = ProtoField.uint16("convoy.localport", "Local port")
f.peeraddress = ProtoField.string("convoy.peer", "Other end's address")
f.peerport = ProtoField.uint16("convoy.peerport", "Other end's port")
f.port = ProtoField.uint16("convoy.port", "Port of either end")
f.stream = ProtoField.string("convoy.stream", "Stream")
f.peerpid = ProtoField.uint32("convoy.peerpid", "Process at the other end")
f.reason = ProtoField.string("convoy.reason", "Reason")
f.payload = ProtoField.bytes("convoy.payload", "Payload")

-- IPv4 addresses are v4-mapped.
local function address(range)
    local bytes = range:bytes()
    for index = 0, 9 do
        if bytes:get_index(index) ~= 0 then
            return "[" .. tostring(range:ipv6()) .. "]"
        end
    end
    if bytes:get_index(10) == 0xff and bytes:get_index(11) == 0xff then
        return tostring(range(12, 4):ipv4())
    end
    return "[" .. tostring(range:ipv6()) .. "]"
end

local function summary(event, kind, position, length, number, reason)
    if event == SENT or event == RECEIVED then
        return string.format("%s %s %d at %s", events[event], kinds[kind] or "?", length, position)
    elseif event == SWITCH or event == FOLLOWED then
        return string.format("%s %d to the %s at %s", events[event], number, paths[kind] or "?", position)
    elseif event == CREDIT then
        return "credit up to " .. position
    elseif event == DEMOTE or event == RESET then
        return events[event] .. ": " .. reason
    elseif event == CLOSE then
        return kind == 0 and "close" or "close with unread bytes"
    elseif event >= KERNEL_SENT then
        return string.format("%s %d", events[event] or "?", length)
    end
    return events[event] or "?"
end

function convoy.dissector(buffer, packet, tree)
    if buffer:len() < HEAD then
        return 0
    end
    packet.cols.protocol = "Convoy"
    local top = tree:add(convoy, buffer())
    top:add(f.version, buffer(0, 1))
    if buffer(0, 1):uint() ~= VERSION then
        packet.cols.info = "of another version than convoy.lua"
        return buffer:len()
    end
    local event, kind, slot = buffer(1, 1):uint(), buffer(2, 1):uint(), buffer(16, 4):uint()
    top:add(f.event, buffer(1, 1))
    if event == SENT or event == RECEIVED then
        top:add(f.kind, buffer(2, 1))
    elseif event == SWITCH or event == FOLLOWED then
        top:add(f.path, buffer(2, 1))
    elseif event == CLOSE then
        top:add(f.unread, buffer(2, 1))
    end
    top:add(f.outgoing, buffer(3, 1))
    top:add(f.pid, buffer(4, 4))
    top:add(f.thread, buffer(8, 4))
    top:add(f.channel, buffer(12, 4))
    if slot ~= NO_SLOT then
        top:add(f.slot, buffer(16, 4))
        top:add(f.generation, buffer(20, 1))
        top:add(f.descriptor, buffer(22, 2))
    end
    top:add(f.position, buffer(24, 8))
    top:add(f.length, buffer(32, 4))
    if event == SWITCH or event == FOLLOWED then
        top:add(f.number, buffer(36, 4))
    end
    local localport, peerport = buffer(56, 2):uint(), buffer(74, 2):uint()
    local stream = string.format("channel %d slot %d", buffer(12, 4):uint(), slot)
    if localport ~= 0 or peerport ~= 0 then
        local here, there = address(buffer(40, 16)), address(buffer(58, 16))
        top:add(f.localaddress, buffer(40, 16), here)
        top:add(f.localport, buffer(56, 2))
        top:add(f.peeraddress, buffer(58, 16), there)
        top:add(f.peerport, buffer(74, 2))
        for _, range in ipairs({ buffer(56, 2), buffer(74, 2) }) do
            local item = top:add(f.port, range)
            if item.set_hidden then item:set_hidden() end
        end
        stream = string.format("%s:%d > %s:%d", here, localport, there, peerport)
        packet.cols.src = here .. ":" .. localport
        packet.cols.dst = there .. ":" .. peerport
    elseif slot == NO_SLOT then
        stream = string.format("channel %d", buffer(12, 4):uint())
    end
    top:add(f.stream, buffer(40, 36), stream)
    top:add(f.peerpid, buffer(76, 4))
    local kept = math.min(buffer(80, 4):uint(), buffer:len() - HEAD)
    local reason = ""
    if kept > 0 and (event == DEMOTE or event == RESET) then
        reason = buffer(HEAD, kept):string()
        top:add(f.reason, buffer(HEAD, kept))
    elseif kept > 0 then
        top:add(f.payload, buffer(HEAD, kept))
    end
    local position = tostring(buffer(24, 8):uint64())
    packet.cols.info = summary(event, kind, position, buffer(32, 4):uint(), buffer(36, 4):uint(), reason)
    return buffer:len()
end

DissectorTable.get("wtap_encap"):add(wtap.USER0, convoy)
