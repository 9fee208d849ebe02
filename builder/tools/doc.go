// Package tools is the tool root: the programs of Debian that the builder runs, such as mkfs.erofs and QEMU, locked in
// tools.lock and independent of what the host has installed.
//
// Open fetches the locked packages, unpacks them into the cache and leaves out what no tool needs (documentation,
// translations, firmware of other machines). Nothing is installed: no maintainer script runs. The few files that scripts
// would have made are written by finish.go.
//
// Run and Command start a program with the tool root as its root folder. The calling program starts itself again with
// another argv[0], in new mount, process and System V IPC namespaces, and, where the caller may not mount (it is not
// root, or root in a container without that right), in a new user namespace, in which the caller's own user is root.
// There EnterIfAsked, which main calls first, builds the root in a tmpfs:
//
//   - the tool root's folders, read-only;
//   - /proc, a few devices in /dev, empty /tmp, /var/tmp and /run;
//   - the host's resolv.conf and hosts file, as the network is the host's;
//   - the host folders that the program works on, at the same paths, so that paths in arguments mean the same inside:
//     the working folder, the cache, the folder for temporary files and what Root.With names.
//
// Then it changes root, starts the program and waits for it as process 1 of the process namespace: when it ends or is
// killed, the kernel kills everything that was started inside, and the mounts end with the last process. It is killed
// when the caller dies. Containers that hide a part of /proc allow no process namespace: there only the process group is
// killed.
//
// Programs get an environment and a umask that are the same on every host, and nothing of the caller's but the folder for
// temporary files and what a Command adds.
package tools
