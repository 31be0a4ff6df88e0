"""The second extended file system on a block device, read and written; ext3 too, whose journal is left empty.

`volume` has the superblock, the groups and what is free; `mapping` says in which blocks a file's bytes are; `entries`
reads and writes directories; `node`, `file`, `directory` and `others` are the inodes that the namespace sees, which
`system` finds; `mounting` makes a superblock of a device. Everything is written through to the device at once.
Source of the format: fs/ext2/ext2.h, and Documentation/filesystems/ext2.rst.
"""
