"""The handlers of system calls, by area; `areas` says which module has which call, and imports it for the first one.

`registry` knows every call and how far it is supported, `arguments` makes C types of registers, `dispatch` calls.
"""
