----------------------------- MODULE MCCatalogue ------------------------------
(* Plans for Catalogue: a configuration file cannot write a function. *)
EXTENDS Catalogue
Twice == <<"create", "create", "delete">>
Moved == <<"create", "rename", "delete">>
===============================================================================
