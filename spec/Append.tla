---------------------------------- MODULE Append ----------------------------------
(* One partition, one repository: who may append, when an append counts, and what  *)
(* may be told about it.                                                           *)
(*                                                                                 *)
(* The log only grows. What was handed to it hangs in `air` and lands at any later *)
(* step, or never, whether or not its sender still lives. The catalogue, where     *)
(* epochs are won, is one step here (`Start`): a bid that lands after its life has *)
(* died is a life that dies right after it.                                        *)
(*                                                                                 *)
(* `Wrong` is the set of plausible rules put in place of the right ones; {} is the *)
(* protocol. README.md lists them with the promise that each one breaks.           *)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS Lives,   \* 1..n, runs of log agents
          Apart,   \* on hosts of their own (a failover; the old one may go on), or one after the other on one host
          Pushes,  \* 1..n, sessions
          Voids,   \* how many void messages may be sent
          Twice,   \* how many messages may land a second time
          Wrong

VARIABLES log, air, epochs, life, push, voids, twice
vars == <<log, air, epochs, life, push, voids, twice>>

Bad(rule) == rule \in Wrong
OtherOf(l) == IF Apart THEN {} ELSE Lives \ {l}      \* lives on the same host

-----------------------------------------------------------------------------------
(* What a reader knows after some prefix of the log. *)
Blank == [cur |-> 0, seq |-> 0, dig |-> 0, in |-> {}, met |-> {}, eps |-> <<>>, odd |-> FALSE]

Highest(a, b) == IF a > b THEN a ELSE b
Follows(v, m) == m.seq = v.seq + 1 /\ m.par = v.dig

Take(v, m) ==
  IF m.kind = "epoch" THEN [v EXCEPT !.cur = IF Bad("lastEpoch") THEN m.e ELSE Highest(@, m.e)]
  ELSE LET w == IF Bad("seen") THEN [v EXCEPT !.met = @ \cup {m.id}] ELSE v IN
       IF m.e < v.cur \/ (m.e = v.cur /\ m.seq <= v.seq) THEN w
       ELSE IF m.e = v.cur /\ Follows(v, m)
       THEN [w EXCEPT !.seq = m.seq, !.dig = m.id, !.in = @ \cup {m.id}, !.eps = Append(@, m.e)]
       ELSE [w EXCEPT !.odd = TRUE]      \* gap, fork or an epoch nobody opened: park

RECURSIVE TakeAll(_, _, _)
TakeAll(v, s, n) == IF n > Len(s) THEN v ELSE TakeAll(Take(v, s[n]), s, n + 1)
All == TakeAll(Blank, log, 1)
Upto(n) == TakeAll(Blank, SubSeq(log, 1, n), 1)

-----------------------------------------------------------------------------------
Init ==
  /\ log = <<>> /\ air = {} /\ epochs = 0 /\ voids = 0 /\ twice = 0
  /\ life = [l \in Lives |-> [st |-> "off", ep |-> 0, at |-> 0, view |-> Blank, sent |-> FALSE]]
  /\ push = [i \in Pushes |-> [st |-> "new", by |-> 0, seq |-> 0, par |-> 0, told |-> ""]]

(* Every start wins a new epoch. The wrong one goes on in the epoch of the life before it. *)
Start(l) ==
  /\ life[l].st = "off" /\ \A k \in OtherOf(l) : k < l => life[k].st = "dead"
  /\ \/ /\ epochs' = epochs + 1
        /\ life' = [life EXCEPT ![l].st = "up", ![l].ep = epochs + 1]
     \/ /\ Bad("keepEpoch") /\ UNCHANGED epochs
        /\ \E k \in OtherOf(l) : k < l /\ life[k].sent /\
             life' = [life EXCEPT ![l] = [st |-> "up", ep |-> life[k].ep, at |-> Len(log),
                                          view |-> All, sent |-> TRUE]]
  /\ UNCHANGED <<log, air, push, voids, twice>>

SendEpoch(l) ==
  /\ life[l].st = "up" /\ ~life[l].sent
  /\ life' = [life EXCEPT ![l].sent = TRUE]
  /\ air' = air \cup {[kind |-> "epoch", e |-> life[l].ep, seq |-> 0, par |-> 0, id |-> 0]}
  /\ UNCHANGED <<log, epochs, push, voids, twice>>

Read(l) ==
  /\ life[l].st = "up" /\ life[l].at < Len(log)
  /\ life' = [life EXCEPT ![l].at = @ + 1, ![l].view = Take(@, log[life[l].at + 1])]
  /\ UNCHANGED <<log, air, epochs, push, voids, twice>>

Die(l) == /\ life[l].st = "up" /\ life' = [life EXCEPT ![l].st = "dead"]
          /\ UNCHANGED <<log, air, epochs, push, voids, twice>>

Serves(l) == /\ life[l].st = "up"
             /\ IF Bad("eager") THEN life[l].view.cur <= life[l].ep ELSE life[l].view.cur = life[l].ep

(* Behind the reader's position the append has either counted or never will. *)
Settled(l, i) == life[l].view.seq >= push[i].seq \/ life[l].view.cur > life[l].ep
Of(l) == {i \in Pushes : push[i].by = l}
Unsettled(l) == {i \in Of(l) : ~Settled(l, i)}

Message(kind, l, seq, par, id) == [kind |-> kind, e |-> life[l].ep, seq |-> seq, par |-> par, id |-> id]

HandOver(i, l) ==
  LET v == life[l].view
      last == {j \in Unsettled(l) : \A k \in Unsettled(l) : push[k].seq <= push[j].seq}
      base == IF last = {} THEN [seq |-> v.seq, dig |-> v.dig]
              ELSE LET j == CHOOSE j \in last : TRUE IN [seq |-> push[j].seq, dig |-> j] IN
  /\ push[i].st = "new" /\ (\A j \in Pushes : j < i => push[j].st # "new") /\ Serves(l)
  /\ Bad("many") \/ Unsettled(l) = {}
  /\ push' = [push EXCEPT ![i] = [st |-> "out", by |-> l, seq |-> base.seq + 1, par |-> base.dig, told |-> ""]]
  /\ air' = air \cup {Message("push", l, base.seq + 1, base.dig, i)}
  /\ UNCHANGED <<log, epochs, life, voids, twice>>

Tell(i, words) == push' = [push EXCEPT ![i].st = "done", ![i].told = words]

Answer(i) ==
  LET l == push[i].by IN
  /\ push[i].st = "out" /\ life[l].st = "up"
  /\ \/ i \in life[l].view.in /\ Tell(i, "accepted")
     \/ i \notin life[l].view.in /\ Settled(l, i) /\ Tell(i, "nothing was changed")
     \/ Bad("seen") /\ i \in life[l].view.met \ life[l].view.in /\ Tell(i, "nothing was changed")
  /\ UNCHANGED <<log, air, epochs, life, voids, twice>>

GiveUp(i) == /\ push[i].st = "out" /\ Tell(i, "not confirmed")
             /\ UNCHANGED <<log, air, epochs, life, voids, twice>>

(* The agent is gone; the session asks the next one on its host, once that serves. *)
AskNext(i) ==
  /\ push[i].st = "out" /\ life[push[i].by].st = "dead"
  /\ \E l \in OtherOf(push[i].by) :
       /\ l > push[i].by /\ Serves(l)
       /\ Tell(i, IF i \in life[l].view.in THEN "accepted" ELSE "nothing was changed")
  /\ UNCHANGED <<log, air, epochs, life, voids, twice>>

SendVoid(l, i) ==
  /\ life[l].st = "up" /\ i \in Unsettled(l) /\ voids < Voids
  /\ voids' = voids + 1
  /\ air' = air \cup {Message("void", l, push[i].seq, push[i].par, 100 + voids)}
  /\ UNCHANGED <<log, epochs, life, push, twice>>

Land(m) ==
  /\ m \in air /\ log' = Append(log, m)
  /\ \/ air' = air \ {m} /\ UNCHANGED twice
     \/ twice < Twice /\ twice' = twice + 1 /\ UNCHANGED air
  /\ UNCHANGED <<epochs, life, push, voids>>

Next == \/ \E l \in Lives : Start(l) \/ SendEpoch(l) \/ Read(l) \/ Die(l)
        \/ \E i \in Pushes : Answer(i) \/ GiveUp(i) \/ AskNext(i)
        \/ \E i \in Pushes, l \in Lives : HandOver(i, l) \/ SendVoid(l, i)
        \/ \E m \in air : Land(m)
Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------------
(* D1: what was called accepted counts, for every reader and for ever (the log only grows). *)
Accepted == \A i \in Pushes : push[i].told = "accepted" => i \in All.in
(* D3: what was told to have changed nothing never counts. *)
NothingChanged == \A i \in Pushes : push[i].told = "nothing was changed" => i \notin All.in
(* F1: once a message of a newer primary counts, none of an older one does. *)
OnePrimary == LET e == All.eps IN \A a, b \in 1..Len(e) : a < b => e[a] <= e[b]
(* Readers may park on what does not fit, because it does not happen. *)
NothingOdd == ~All.odd

(* A reader that goes on from a stored position arrives where one from the start arrives. It stores the offset *)
(* and the epoch in force there; the wrong ones take that epoch from elsewhere.                                 *)
RECURSIVE ReadOn(_, _, _)
ReadOn(v, knows, n) ==
  IF n > Len(log) THEN v
  ELSE LET m == log[n] IN
       IF ~knows /\ m.kind # "epoch" /\ Follows(v, m)
       THEN ReadOn(Take([v EXCEPT !.cur = m.e], m), TRUE, n + 1)
       ELSE ReadOn(Take(v, m), knows \/ m.kind = "epoch", n + 1)
Resumed(n) ==
  LET v == Upto(n) IN
  CASE Bad("inferEpoch")     -> ReadOn([v EXCEPT !.cur = 0], FALSE, n + 1)
    [] Bad("catalogueEpoch") -> ReadOn([v EXCEPT !.cur = epochs], TRUE, n + 1)
    [] Bad("copyEpoch")      -> ReadOn([v EXCEPT !.cur = IF v.eps = <<>> THEN @ ELSE v.eps[Len(v.eps)]], TRUE, n + 1)
    [] OTHER                 -> ReadOn(v, TRUE, n + 1)
SamePlace == \A n \in 1..Len(log) : Resumed(n).dig = All.dig
===================================================================================
