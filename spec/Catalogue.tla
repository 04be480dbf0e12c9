--------------------------------- MODULE Catalogue --------------------------------
(* Create, delete and rename across two kinds of partition, with a failover in the  *)
(* middle: the catalogue (path -> repository) and the partition of each repository. *)
(*                                                                                 *)
(* A catalogue message counts iff it is of the epoch in force and names the next   *)
(* seq; a bid for a new epoch needs only the seq. A message in a repository's       *)
(* partition counts iff its epoch is the one that was last read there. Everything  *)
(* handed over hangs in `air` and lands at any later step, or never.               *)
EXTENDS Naturals, FiniteSets

CONSTANTS Lives,   \* 1..n; life 1 holds the epoch at the beginning
          Plan,    \* a function 1..n -> {"create", "delete", "rename"}: operations that may be tried
          Wrong

VARIABLES cat, part, air, life, op
vars == <<cat, part, air, life, op>>

Bad(rule) == rule \in Wrong
Paths == {"here", "there"}                           \* everything is created at "here" and renamed to "there"
Ops == DOMAIN Plan
Repos == {o \in Ops : Plan[o] = "create"}            \* operation o creates repository o
None == 0

Init ==
  /\ cat = [seq |-> 0, epoch |-> 1, owner |-> 1, leads |-> [p \in Paths |-> None], ever |-> {}, clash |-> FALSE]
  /\ part = [r \in Repos |-> [epoch |-> 1, created |-> FALSE, deleted |-> FALSE]]
  /\ air = {}
  /\ life = [l \in Lives |-> IF l = 1 THEN [st |-> "won", epoch |-> 1, done |-> Repos]
                             ELSE [st |-> "off", epoch |-> 0, done |-> {}]]
  /\ op = [o \in Ops |-> [st |-> "new", by |-> 0, repo |-> None, told |-> ""]]

Bound == {cat.leads[p] : p \in Paths} \ {None}
Half(r) == part[r].created /\ ~part[r].deleted /\ r \notin Bound

ToCat(kind, l, r, p)  == [to |-> "cat", kind |-> kind, by |-> l, repo |-> r, path |-> p,
                          epoch |-> life[l].epoch, seq |-> cat.seq + 1]
ToPart(kind, l, r)    == [to |-> "part", kind |-> kind, by |-> l, repo |-> r, path |-> "",
                          epoch |-> life[l].epoch, seq |-> 0]

-----------------------------------------------------------------------------------
(* Landing *)
Led(x) == CASE x.kind = "bind"   -> [cat.leads EXCEPT ![x.path] = x.repo]
            [] x.kind = "unbind" -> [cat.leads EXCEPT ![x.path] = None]
            [] x.kind = "rename" -> [cat.leads EXCEPT !["here"] = None, !["there"] = x.repo]
            [] OTHER -> cat.leads
(* What the sender checked no longer holds although its seq fits: the chain is there to exclude that. *)
Clashes(x) == CASE x.kind = "bind"   -> cat.leads[x.path] # None
                [] x.kind = "unbind" -> cat.leads[x.path] # x.repo
                [] x.kind = "rename" -> cat.leads["here"] # x.repo \/ cat.leads["there"] # None
                [] OTHER -> FALSE
Land(x) ==
  /\ x \in air /\ air' = air \ {x} /\ UNCHANGED <<life, op>>
  /\ IF x.to = "cat"
     THEN /\ UNCHANGED part
          /\ IF x.seq # cat.seq + 1 \/ (x.kind # "bid" /\ x.epoch # cat.epoch) THEN UNCHANGED cat
             ELSE cat' = [seq |-> x.seq, leads |-> Led(x), clash |-> cat.clash \/ Clashes(x),
                          epoch |-> IF x.kind = "bid" THEN x.epoch ELSE cat.epoch,
                          owner |-> IF x.kind = "bid" THEN x.by ELSE cat.owner,
                          ever |-> IF x.kind = "bind" THEN cat.ever \cup {x.repo} ELSE cat.ever]
     ELSE /\ UNCHANGED cat
          /\ LET y == part[x.repo] IN
             part' = [part EXCEPT ![x.repo] =
               CASE x.kind = "epoch" -> [y EXCEPT !.epoch = IF x.epoch > @ THEN x.epoch ELSE @]
                 [] x.epoch # y.epoch -> y
                 [] x.kind = "created" -> [y EXCEPT !.created = TRUE]
                 [] x.kind = "deleted" -> [y EXCEPT !.deleted = @ \/ y.created]]

-----------------------------------------------------------------------------------
(* Lives: bid, win, open every partition, complete it, then work. An epoch's number is the seq of its bid + 1. *)
Bidding(l) == /\ life' = [life EXCEPT ![l].st = "bid", ![l].epoch = cat.seq + 2]
              /\ air' = air \cup {[to |-> "cat", kind |-> "bid", by |-> l, repo |-> None, path |-> "",
                                   epoch |-> cat.seq + 2, seq |-> cat.seq + 1]}
              /\ UNCHANGED <<cat, part, op>>
Bid(l)   == life[l].st = "off" /\ Bidding(l)
BidAnew(l) == /\ life[l].st = "bid" /\ cat.seq + 1 >= life[l].epoch
              /\ ~(cat.epoch = life[l].epoch /\ cat.owner = l) /\ (\A x \in air : x.kind # "bid" \/ x.by # l)
              /\ Bidding(l)
Win(l) == /\ life[l].st = "bid" /\ cat.epoch = life[l].epoch /\ (cat.owner = l \/ Bad("number"))
          /\ life' = [life EXCEPT ![l].st = "won"]
          /\ air' = air \cup {ToPart("epoch", l, r) : r \in Repos} /\ UNCHANGED <<cat, part, op>>
Die(l) == /\ life[l].st \in {"bid", "won"} /\ life' = [life EXCEPT ![l].st = "dead"]
          /\ op' = [o \in Ops |-> IF op[o].by = l THEN [op[o] EXCEPT !.st = "done"] ELSE op[o]]
          /\ UNCHANGED <<cat, part, air>>

Complete(l, r) ==
  /\ life[l].st = "won" /\ r \notin life[l].done /\ (part[r].epoch = life[l].epoch \/ Bad("early"))
  /\ \A x \in air : x.by # l \/ x.repo # r \/ x.kind \notin {"bind", "deleted"}
  /\ IF ~Half(r) THEN life' = [life EXCEPT ![l].done = @ \cup {r}] /\ UNCHANGED air
     ELSE /\ UNCHANGED life
          /\ air' = air \cup {IF Bad("bindHalf") /\ cat.leads["here"] = None THEN ToCat("bind", l, r, "here")
                              ELSE ToPart("deleted", l, r)}
  /\ UNCHANGED <<cat, part, op>>

-----------------------------------------------------------------------------------
(* Operations *)
Works(l) == life[l].st = "won" /\ life[l].done = Repos
Begin(o, l) ==
  LET r == IF Plan[o] = "create" THEN o ELSE cat.leads["here"]
      first == CASE Plan[o] = "create" -> ToPart("created", l, r)
                 [] Plan[o] = "delete" -> ToCat("unbind", l, r, "here")
                 [] Plan[o] = "rename" -> ToCat("rename", l, r, "there") IN
  /\ op[o].st = "new" /\ Works(l) /\ (Plan[o] = "create") = (cat.leads["here"] = None)
  /\ Plan[o] = "rename" => cat.leads["there"] = None
  /\ op' = [op EXCEPT ![o] = [st |-> first.kind, by |-> l, repo |-> r, told |-> ""]]
  /\ air' = air \cup {first} /\ UNCHANGED <<cat, part, life>>

Stage(o, st, told) == op' = [op EXCEPT ![o].st = st, ![o].told = told]
Sends(x) == air' = air \cup {x}
Flies(o, kind) == \E x \in air : x.by = op[o].by /\ x.repo = op[o].repo /\ x.kind = kind
Took(r) == IF Bad("byPath") THEN r \in Bound ELSE r \in cat.ever      \* by the message itself, not by what is there now

GoOn(o) ==
  LET l == op[o].by  r == op[o].repo  st == op[o].st
      isMine == cat.epoch = life[l].epoch IN
  /\ st \notin {"new", "done"} /\ life[l].st = "won" /\ UNCHANGED <<cat, part, life>>
  /\ \/ st = "created" /\ part[r].created /\ cat.leads["here"] = None
        /\ Sends(ToCat("bind", l, r, "here")) /\ Stage(o, "bind", "")
     \/ st = "created" /\ part[r].created /\ cat.leads["here"] # None
        /\ Sends(ToPart("deleted", l, r)) /\ Stage(o, "undo", IF Bad("toldEarly") THEN "nothing was changed" ELSE "")
     \/ st = "created" /\ ~part[r].created /\ part[r].epoch > life[l].epoch
        /\ Stage(o, "done", "nothing was changed") /\ UNCHANGED air
     \/ st = "bind" /\ Took(r) /\ Stage(o, "done", "ok") /\ UNCHANGED air
     \/ st = "bind" /\ ~Took(r) /\ ~Flies(o, "bind") /\ isMine /\ Stage(o, "created", "") /\ UNCHANGED air
     \/ st = "undo" /\ part[r].deleted /\ Stage(o, "done", "nothing was changed") /\ UNCHANGED air
     \/ st = "unbind" /\ r \notin Bound /\ Sends(ToPart("deleted", l, r)) /\ Stage(o, "done", "ok")
     \/ st = "unbind" /\ cat.leads["here"] = r /\ ~Flies(o, "unbind") /\ isMine
        /\ Sends(ToCat("unbind", l, r, "here")) /\ UNCHANGED op
     \/ st = "rename" /\ cat.leads["there"] = r /\ Stage(o, "done", "ok") /\ UNCHANGED air

Next == \/ \E x \in air : Land(x)
        \/ \E l \in Lives : Bid(l) \/ BidAnew(l) \/ Win(l) \/ Die(l)
        \/ \E l \in Lives, r \in Repos : Complete(l, r)
        \/ \E o \in Ops : GoOn(o) \/ \E l \in Lives : Begin(o, l)
Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------------
OnePlace == ~cat.clash /\ \A p, q \in Paths : cat.leads[p] # None /\ cat.leads[p] = cat.leads[q] => p = q
BoundLives == \A r \in Bound : part[r].created /\ ~part[r].deleted
DeletedStays == \A o \in Ops : Plan[o] = "delete" /\ op[o].told = "ok" => op[o].repo \notin Bound
NothingChanged == \A r \in Repos : op[r].told = "nothing was changed" => r \notin Bound
(* Once the newest life works, what is half done is under way there. *)
NoHalf ==
  \A l \in Lives :
    (Works(l) /\ cat.owner = l /\ cat.epoch = life[l].epoch /\ \A r \in Repos : part[r].epoch = life[l].epoch) =>
      \A r \in Repos : Half(r) =>
        \E o \in Ops : op[o].repo = r /\ op[o].by = l /\ (op[o].st # "done" \/ Flies(o, "deleted"))
===================================================================================
