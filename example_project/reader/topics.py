"""Topics of the standard library, as the module list groups them. A module in no row goes to "Other modules"."""

from __future__ import annotations

TOPICS: dict[str, str] = {
    "Text": "difflib readline re reprlib rlcompleter string stringprep textwrap unicodedata",
    "Data types": (
        "array bisect calendar collections copy copyreg datetime enum graphlib heapq pprint queue sched struct types "
        "weakref zoneinfo"
    ),
    "Numbers": "cmath decimal fractions math numbers random statistics",
    "Functions and iteration": "abc contextlib contextvars dataclasses functools itertools operator",
    "Files and folders": (
        "fcntl filecmp fileinput fnmatch genericpath glob linecache ntpath pathlib posixpath shutil stat tempfile"
    ),
    "Data formats": (
        "base64 binascii codecs configparser csv encodings html json marshal mimetypes netrc pickle pickletools "
        "plistlib quopri tomllib uu xdrlib xml"
    ),
    "Storage and archives": "bz2 dbm gzip lzma mmap shelve sqlite3 tarfile zipapp zipfile zipimport zlib",
    "Security": "crypt getpass hashlib hmac secrets ssl",
    "Operating system": (
        "argparse cmd ctypes curses errno getopt grp io locale logging nis optparse os pipes platform posix pty pwd "
        "resource select selectors shlex signal spwd syslog termios time tty"
    ),
    "Concurrency": "asyncio asynchat asyncore concurrent multiprocessing subprocess threading",
    "Network": (
        "cgi cgitb email ftplib http imaplib ipaddress mailbox mailcap nntplib poplib smtpd smtplib socket "
        "socketserver telnetlib urllib uuid webbrowser wsgiref xmlrpc"
    ),
    "Sound, pictures, translation": "aifc audioop chunk colorsys gettext imghdr ossaudiodev sndhdr sunau wave",
    "Testing and debugging": (
        "bdb cProfile doctest faulthandler pdb profile pstats pydoc timeit trace traceback tracemalloc unittest"
    ),
    "The language": (
        "ast builtins code codeop compileall dis gc importlib inspect keyword modulefinder opcode pkgutil py_compile "
        "pyclbr runpy site symtable sys sysconfig tabnanny token tokenize typing warnings atexit"
    ),
}
OTHER_TOPIC = "Other modules"
TOPIC_OF: dict[str, str] = {name: topic for topic, names in TOPICS.items() for name in names.split()}
