"""Run one experiment or a sweep:  python run.py stream=split_cifar strategy=olora  (--help tells more)."""

from cl.cli import main

if __name__ == "__main__":
    main()
