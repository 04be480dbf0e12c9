--------------------------------- MODULE Exposure ---------------------------------
(* Watermark, membership and "visible on all mirrors", for one repository.         *)
(*                                                                                 *)
(* `topic` is the fold of all of the state topic; a coordinator acts on `read`, the *)
(* fold of some prefix of it. A coordinator's decisions hang in `air` and land at   *)
(* any later step. A mirror's change and its report are one step: a report that     *)
(* lands later makes the others only more careful. A member is <<mirror,            *)
(* incarnation>>; parking the repository, a restart and a lapse all end one         *)
(* incarnation and begin the next, because all of them are "joined anew".           *)
(*                                                                                 *)
(* Time appears only as what it allows: `Lapse` says that a lease is over by the    *)
(* member's own clock. A coordinator that has read to a fresh end may then evict,   *)
(* once the load balancer has taken the member out: that is what "lease >=          *)
(* self-stale time + detection" buys. A paused mirror takes no step.                *)
EXTENDS Naturals, FiniteSets

CONSTANTS Mirrors,       \* 1..n; mirror 1 is counted and in service at the beginning
          Coordinators,  \* 1..n, in the order of their claims
          Head,          \* up to which seq is pushed
          Incarnations,  \* 1..n
          Pauses, Wipes, \* how often a mirror may stand still, or lose its disk
          Floor,         \* as many must be counted for the watermark to move
          Wrong

VARIABLES pushed, topic, read, air, m, pauses, wipes
vars == <<pushed, topic, read, air, m, pauses, wipes>>

Bad(rule) == rule \in Wrong
Nobody == 99
Highest(a, b) == IF a > b THEN a ELSE b
Lowest(S) == IF S = {} THEN 0 ELSE CHOOSE a \in S : \A b \in S : a <= b

-----------------------------------------------------------------------------------
(* The fold. `told`: the highest seq that anyone who read some prefix may have      *)
(* called visible. `passed`: the watermark once lay above what a counted member had *)
(* applied. `due[k]`: the watermark at the admission of mirror k's counted member.  *)
Unheard == [applied |-> 0, exposed |-> 0, asks |-> FALSE]
Topic0 == [claim |-> 1, mark |-> 0, told |-> 0, passed |-> FALSE, counted |-> {<<1, 1>>}, out |-> {},
           due |-> [k \in Mirrors |-> 0],
           word |-> [k \in Mirrors |-> [i \in Incarnations |->
                       IF k # 1 /\ i = 1 THEN [Unheard EXCEPT !.asks = TRUE] ELSE Unheard]]]

LeastOf(t, what) == Lowest({t.word[y[1]][y[2]][what] : y \in t.counted})
Noted(t) == [t EXCEPT !.told = Highest(@, LeastOf(t, "exposed")),
                      !.passed = @ \/ (t.counted # {} /\ LeastOf(t, "applied") < t.mark)]
Heard(t, k, i, a, e, asks) == Noted([t EXCEPT !.word[k][i] = [applied |-> a, exposed |-> e, asks |-> asks]])
Decided(t, d) ==
  IF d.claim # t.claim /\ ~Bad("anyClaim") THEN t
  ELSE CASE d.kind = "mark"  -> Noted([t EXCEPT !.mark = Highest(@, d.seq)])
         [] d.kind = "evict" -> Noted([t EXCEPT !.counted = @ \ {<<d.k, d.i>>}, !.out = @ \cup {<<d.k, d.i>>}])
         [] d.kind = "admit" -> IF <<d.k, d.i>> \in t.out THEN t
                                ELSE Noted([t EXCEPT !.counted = @ \cup {<<d.k, d.i>>}, !.due[d.k] = t.mark])

Init ==
  /\ pushed = 0 /\ topic = Topic0 /\ air = {} /\ pauses = 0 /\ wipes = 0
  /\ read = [c \in Coordinators |-> [topic |-> Topic0, done |-> TRUE]]
  /\ m = [k \in Mirrors |->
            [applied |-> 0, exposed |-> 0, inc |-> 1, serves |-> k = 1, refuses |-> k # 1, lapsed |-> FALSE,
             paused |-> FALSE, routed |-> k = 1, mark |-> 0, due |-> IF k = 1 THEN 0 ELSE Nobody]]

-----------------------------------------------------------------------------------
(* Mirrors *)
Push == pushed < Head /\ pushed' = pushed + 1 /\ UNCHANGED <<topic, read, air, m, pauses, wipes>>

Say(k, x) == /\ m' = [m EXCEPT ![k] = x]
             /\ topic' = Heard(topic, k, x.inc, x.applied, x.exposed, ~x.serves)
Awake(k) == ~m[k].paused
Others == UNCHANGED <<pushed, read, air, pauses, wipes>>

Apply(k) == Awake(k) /\ m[k].applied < pushed /\ Say(k, [m[k] EXCEPT !.applied = @ + 1]) /\ Others

Listen(k) ==
  LET due == IF <<k, m[k].inc>> \in topic.counted THEN topic.due[k] ELSE Nobody IN
  /\ Awake(k) /\ <<m[k].mark, m[k].due>> # <<topic.mark, due>>
  /\ m' = [m EXCEPT ![k].mark = topic.mark, ![k].due = due] /\ UNCHANGED topic /\ Others

Expose(k) ==
  LET n == Lowest({m[k].applied, m[k].mark}) IN
  Awake(k) /\ n > m[k].exposed /\ Say(k, [m[k] EXCEPT !.exposed = n]) /\ Others

(* Counted first, served last. *)
Serve(k) ==
  /\ Awake(k) /\ ~m[k].serves /\ ~m[k].lapsed
  /\ IF Bad("uncounted") THEN m[k].applied = pushed
     ELSE m[k].due # Nobody /\ (m[k].exposed >= m[k].due \/ Bad("unexposed"))
  /\ Say(k, [m[k] EXCEPT !.serves = TRUE, !.refuses = FALSE,
                         !.exposed = IF Bad("uncounted") THEN m[k].applied ELSE @])
  /\ Others

(* Parked, restarted, drained or lapsed: refuse reads, then say that a new incarnation asks. *)
JoinAnew(k) ==
  /\ Awake(k) /\ m[k].inc + 1 \in Incarnations /\ (m[k].serves \/ m[k].lapsed)
  /\ ~(Bad("renewed") /\ m[k].lapsed)
  /\ \E isWiped \in {FALSE, TRUE} :
       /\ isWiped => wipes < Wipes
       /\ wipes' = wipes + (IF isWiped THEN 1 ELSE 0)
       /\ Say(k, [m[k] EXCEPT !.inc = @ + 1, !.serves = FALSE, !.lapsed = FALSE, !.due = Nobody,
                              !.refuses = ~Bad("reportFirst"),
                              !.applied = IF isWiped THEN 0 ELSE @, !.exposed = IF isWiped THEN 0 ELSE @,
                              !.mark = IF isWiped THEN 0 ELSE @])
  /\ UNCHANGED <<pushed, read, air, pauses>>
RefuseLate(k) == /\ Awake(k) /\ ~m[k].serves /\ ~m[k].refuses /\ m' = [m EXCEPT ![k].refuses = TRUE]
                 /\ UNCHANGED topic /\ Others

Lapse(k) == /\ ~m[k].lapsed /\ (m[k].serves \/ <<k, m[k].inc>> \in topic.counted)
            /\ m' = [m EXCEPT ![k].lapsed = TRUE] /\ UNCHANGED topic /\ Others
Renew(k) == /\ Bad("renewed") /\ Awake(k) /\ m[k].lapsed
            /\ m' = [m EXCEPT ![k].lapsed = FALSE] /\ UNCHANGED topic /\ Others
Pause(k) == /\ Awake(k) /\ pauses < Pauses /\ pauses' = pauses + 1 /\ m' = [m EXCEPT ![k].paused = TRUE]
            /\ UNCHANGED <<pushed, topic, read, air, wipes>>
Resume(k) == /\ m[k].paused /\ m' = [m EXCEPT ![k].paused = FALSE] /\ UNCHANGED topic /\ Others

(* The load balancer asks a web worker; the worker looks at the clock, or repeats what the applier last found. *)
Ready(k) == m[k].serves /\ (~m[k].lapsed \/ (Bad("cached") /\ m[k].paused))
Route(k) == /\ m[k].routed # Ready(k) /\ m' = [m EXCEPT ![k].routed = Ready(k)] /\ UNCHANGED topic /\ Others

-----------------------------------------------------------------------------------
(* Coordinators *)
Claim(c) == /\ c = topic.claim + 1 /\ topic' = [topic EXCEPT !.claim = c]
            /\ UNCHANGED <<pushed, read, air, m, pauses, wipes>>
ReadOn(c) ==
  LET now == [topic |-> topic, done |-> ~\E d \in air : d.claim = c] IN
  /\ c <= topic.claim /\ read[c] # now /\ read' = [read EXCEPT ![c] = now]
  /\ UNCHANGED <<pushed, topic, air, m, pauses, wipes>>

(* Under its own claim as far as it has read, and with its last decision read back. *)
MayDecide(c) == /\ read[c].topic.claim = c \/ (Bad("anyClaim") /\ topic.claim >= c)
                /\ read[c].done \/ Bad("unread")
Send(c, d) == /\ d \notin air /\ air' = air \cup {d} /\ read' = [read EXCEPT ![c].done = FALSE]
              /\ UNCHANGED <<pushed, topic, m, pauses, wipes>>
Decision(kind, c, k, i, n) == [kind |-> kind, claim |-> c, k |-> k, i |-> i, seq |-> n]

MoveMark(c) ==
  LET t == read[c].topic  n == LeastOf(t, "applied") IN
  /\ MayDecide(c) /\ t.counted # {} /\ Cardinality(t.counted) >= Floor /\ n > t.mark
  /\ Send(c, Decision("mark", c, 0, 0, n))
Admit(c, k, i) ==
  LET t == read[c].topic IN
  /\ MayDecide(c) /\ t.word[k][i].asks /\ t.word[k][i].applied >= t.mark
  /\ <<k, i>> \notin t.counted \cup t.out
  /\ \A j \in Incarnations : <<k, j>> \notin t.counted /\ (j > i => ~t.word[k][j].asks)
  /\ Send(c, Decision("admit", c, k, i, 0))
Evict(c, k, i) ==
  LET t == read[c].topic
      isReplaced == \E j \in Incarnations : j > i /\ t.word[k][j].asks
      isSilent == (m[k].inc # i \/ m[k].lapsed) /\ (~m[k].routed \/ Bad("cached")) IN
  /\ MayDecide(c) /\ <<k, i>> \in t.counted
  /\ isReplaced \/ (isSilent /\ t = topic) \/ (Bad("blind") /\ t # topic)
  /\ Send(c, Decision("evict", c, k, i, 0))

Land(d) == /\ d \in air /\ air' = air \ {d} /\ topic' = Decided(topic, d)
           /\ UNCHANGED <<pushed, read, m, pauses, wipes>>

Next == \/ Push
        \/ \E k \in Mirrors : Apply(k) \/ Listen(k) \/ Expose(k) \/ Serve(k) \/ JoinAnew(k) \/ RefuseLate(k)
                              \/ Lapse(k) \/ Renew(k) \/ Pause(k) \/ Resume(k) \/ Route(k)
        \/ \E c \in Coordinators : Claim(c) \/ ReadOn(c) \/ MoveMark(c)
        \/ \E c \in Coordinators, k \in Mirrors, i \in Incarnations : Admit(c, k, i) \/ Evict(c, k, i)
        \/ \E d \in air : Land(d)
Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------------
(* In service: routable, and it does not refuse. *)
InService(k) == m[k].routed /\ ~m[k].refuses
(* R3: every mirror in service shows what was called visible on all. *)
VisibleOnAll == \A k \in Mirrors : InService(k) => m[k].exposed >= topic.told
(* R4: what one mirror in service names, every other one has. *)
Pullable == \A k, j \in Mirrors : InService(k) /\ InService(j) => m[k].exposed <= m[j].applied
NeverPassed == ~topic.passed
WithinApplied == \A k \in Mirrors : m[k].exposed <= m[k].applied
===================================================================================
