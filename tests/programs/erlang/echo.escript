#!/usr/bin/env escript
%% Erlang's sockets in all modes, an echo server and its clients: echo.escript serve PORT, or call PORT CLIENTS.
%% SIGTERM ends the server. The first two bytes of a connection say how the server is to treat it.
-mode(compile).

-define(PACKETS, [raw, 1, 2, 4, line]).
-define(ACTIVES, [false, once, 7, true]).

main(["serve", Port]) ->
    os:set_signal(sigterm, handle),
    ok = gen_event:swap_handler(erl_signal_server, {erl_signal_handler, []}, {erl_signal_handler, []}),
    lists:foreach(fun(Backend) -> listen(list_to_integer(Port), Backend) end, [inet, socket]),
    receive after infinity -> ok end;
main(["call", Port, Clients]) ->
    Count = list_to_integer(Clients),
    lists:foreach(
      fun({Backend, Packet, Active}) ->
              in_parallel(Count, fun(N) -> talk(list_to_integer(Port), Backend, Packet, Active, N) end),
              io:format("~p packet ~p active ~p~n", [Backend, Packet, Active])
      end,
      [{B, P, A} || B <- [inet, socket], P <- ?PACKETS, A <- ?ACTIVES]),
    halt(0).

%% The driver of the virtual machine listens on the port, the newer socket module on the next.
port(Port, inet) -> Port;
port(Port, socket) -> Port + 1.

options(inet) -> [];
options(socket) -> [{inet_backend, socket}].

listen(Port, Backend) ->
    Options = options(Backend) ++ [binary, {active, false}, {ip, {127, 0, 0, 1}}, {reuseaddr, true}, {backlog, 100}],
    {ok, Listener} = gen_tcp:listen(port(Port, Backend), Options),
    spawn_link(fun() -> accept(Listener) end),
    receive after 0 -> ok end.

accept(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Server = spawn_link(fun() -> receive go -> serve(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Server),
    Server ! go,
    accept(Listener).

serve(Socket) ->
    case gen_tcp:recv(Socket, 2) of
        {ok, <<Packet, Active>>} ->
            set(Socket, lists:nth(Packet, ?PACKETS), lists:nth(Active, ?ACTIVES)),
            echo(Socket, lists:nth(Active, ?ACTIVES));
        {error, closed} ->
            somebody_only_looks_whether_we_listen
    end,
    gen_tcp:close(Socket).

set(Socket, Packet, Active) ->
    ok = inet:setopts(Socket, [{packet, Packet}, {recbuf, 200000}, {buffer, 300000}, {active, Active}]).

echo(Socket, Active) ->
    case take(Socket, Active) of
        {ok, Data} ->
            ok = gen_tcp:send(Socket, Data),
            echo(Socket, Active);
        {error, closed} ->
            ok
    end.

%% The next message, whatever the mode is.
take(Socket, false) ->
    gen_tcp:recv(Socket, 0);
take(Socket, Active) ->
    receive
        {tcp, Socket, Data} ->
            Active =:= once andalso inet:setopts(Socket, [{active, once}]),
            {ok, Data};
        {tcp_passive, Socket} ->
            inet:setopts(Socket, [{active, Active}]),
            take(Socket, Active);
        {tcp_closed, Socket} ->
            {error, closed};
        {tcp_error, Socket, Reason} ->
            {error, Reason}
    end.

place(Element, List) ->
    length(lists:takewhile(fun(Other) -> Other =/= Element end, List)) + 1.

talk(Port, Backend, Packet, Active, Number) ->
    Options = options(Backend) ++ [binary, {active, false}, {packet, raw}, {nodelay, true}],
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, port(Port, Backend), Options),
    ok = gen_tcp:send(Socket, <<(place(Packet, ?PACKETS)), (place(Active, ?ACTIVES))>>),
    set(Socket, Packet, Active),
    lists:foreach(fun(Turn) -> ask(Socket, Packet, Active, [message(Packet, Number, Turn)]) end, lists:seq(1, 100)),
    %% Many at once: the server's answers come while the questions still go.
    Many = [message(Packet, Number, Turn) || Turn <- lists:seq(1, 60)],
    ask(Socket, Packet, Active, Many),
    ok = gen_tcp:shutdown(Socket, write),
    {error, closed} = take(Socket, Active),
    ok = gen_tcp:close(Socket).

ask(Socket, Packet, Active, Messages) ->
    Self = self(),
    {Sender, Ref} = spawn_monitor(fun() -> [ok = gen_tcp:send(Socket, One) || One <- Messages], Self ! {sent, self()} end),
    hear(Socket, Packet, Active, Messages),
    receive {sent, Sender} -> erlang:demonitor(Ref, [flush]); {'DOWN', Ref, _, _, Reason} -> exit(Reason) end.

%% Without packets only the bytes count, with them every message must come whole.
hear(Socket, raw, Active, Messages) ->
    Bytes = iolist_to_binary(Messages),
    Bytes = gather(Socket, Active, byte_size(Bytes), []),
    ok;
hear(Socket, _, Active, Messages) ->
    lists:foreach(fun(One) -> {ok, One} = take(Socket, Active) end, Messages).

gather(_, _, 0, Parts) ->
    iolist_to_binary(lists:reverse(Parts));
gather(Socket, Active, Left, Parts) ->
    {ok, Data} = take(Socket, Active),
    gather(Socket, Active, Left - byte_size(Data), [Data | Parts]).

message(Packet, Number, Turn) ->
    Sizes = case Packet of
                1 -> {1, 17, 255};
                2 -> {1, 700, 65535};
                line -> {1, 70, 5000};
                _ -> {1, 3000, 90000, 250000}
            end,
    Size = element(Turn rem tuple_size(Sizes) + 1, Sizes),
    Block = crypto_free_pattern(Number * 1000 + Turn),
    Body = binary:part(binary:copy(Block, Size div byte_size(Block) + 1), 0, Size),
    case Packet of
        line -> <<(binary:replace(Body, <<"\n">>, <<"x">>, [global]))/binary, "\n">>;
        _ -> Body
    end.

crypto_free_pattern(Seed) ->
    << <<(erlang:phash2({Seed, Place}, 256))>> || Place <- lists:seq(1, 251) >>.

in_parallel(Count, What) ->
    Started = [spawn_monitor(fun() -> What(Number) end) || Number <- lists:seq(1, Count)],
    lists:foreach(
      fun({Process, Ref}) ->
              receive {'DOWN', Ref, process, Process, Reason} -> normal = Reason end
      end,
      Started).
