"""A study that is killed, its disk filled and its server stopped while it runs: `make chaos`.

`injector` is loaded in the processes of the study and kills them at a write, or lets the write fail;
`victims` finds processes to kill at any other moment; `trial` runs one study under such a regime, and
`checks` compares what is left with an undisturbed study. The command line is in `__main__`.
"""
