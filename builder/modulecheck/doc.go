// Package modulecheck finds what the declaration of a module forgets. A module's tree is only unpacked and declared; no
// maintainer script runs. Here the same packages are installed as Debian does it, all scripts included, and every path
// that the scripts made, changed or removed is looked for in the tree. What is neither there in the same way, nor known
// never to matter (never.go), nor ignored by the declaration with a reason, is listed.
//
// The installation is made in the tool root, below which the packages of trees/check.toml give scripts what they expect:
// the essential packages and their usual helpers. It runs in a user namespace and under fakeroot, so that scripts have no
// rights on the host, and root, root in a container and ordinary users see the same owners and modes. Not seen are
// extended attributes (file capabilities), whether a daemon would start (none is started), and what packages make only
// when the system boots.
package modulecheck
