"""Run one experiment or a sweep:  python run.py stream=split_cifar strategy=olora  (--help tells more)."""

import sys

if __name__ == "__main__":
    try:
        from cl.cli import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()
