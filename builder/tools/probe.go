package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// probe finds out which namespaces this host lets us have, by trying: first those with the fewest conditions for what
// runs inside.
func probe(ctx context.Context) (namespaces, error) {
	var failed error
	for _, n := range candidates(os.Geteuid() == 0) {
		err := try(ctx, n)
		if err == nil {
			return n, nil
		}
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		failed = err
	}
	return namespaces{}, fmt.Errorf("cannot enter the tool root: %w%s", failed, remedy())
}

func candidates(root bool) []namespaces {
	n := []namespaces{{user: true, pid: true}, {user: true}}
	if root {
		n = append([]namespaces{{pid: true}, {}}, n...)
	}
	return n
}

// try starts this program in the namespaces and has it do all mounts but those of a tool root.
func try(ctx context.Context, n namespaces) error {
	spec, err := json.Marshal(entry{PID: n.pid})
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{marker, string(spec)}
	cmd.Dir = "/"
	cmd.Stderr = &said
	cmd.SysProcAttr = n.attributes()
	if err := cmd.Run(); err != nil {
		if said.Len() > 0 {
			return fmt.Errorf("%s", strings.TrimPrefix(strings.TrimSpace(said.String()), "cannot enter the tool root: "))
		}
		return err
	}
	return nil
}

// switches are the settings by which hosts keep ordinary users from making user namespaces.
var switches = []struct{ file, bad, remedy string }{
	{"/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=15000"},
	{"/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"},
}

// remedy tells how to get user namespaces on this host.
func remedy() string {
	var lines []string
	for _, s := range switches {
		b, err := os.ReadFile(s.file)
		if err == nil && strings.TrimSpace(string(b)) == s.bad {
			name := strings.ReplaceAll(strings.TrimPrefix(s.file, "/proc/sys/"), "/", ".")
			lines = append(lines, fmt.Sprintf("\n  %s is %s on this host; as root: sysctl -w %s", name, s.bad, s.remedy))
		}
	}
	if len(lines) == 0 {
		return "\n  the builder needs user namespaces, or to be root with the right to mount; " +
			"in a container, start it with --privileged, or with --cap-add SYS_ADMIN --security-opt seccomp=unconfined " +
			"--security-opt apparmor=unconfined"
	}
	return strings.Join(lines, "")
}
