BASES = ()
