// Allot-supervisor runs the box: PID 1 starts it with a pipe for its heartbeat as file descriptor 3, and does as its exit
// code says. See docs/architecture.md.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/gateway"
	"allotment/image"
	"allotment/init/apiserver"
	"allotment/init/backup"
	"allotment/init/boot"
	"allotment/init/console"
	"allotment/init/container"
	"allotment/init/plan"
	"allotment/init/provider"
	"allotment/init/reaper"
	"allotment/init/resolver"
	"allotment/init/state"
	"allotment/init/supervisor"
)

const (
	programs    = "/usr/lib/allotment/"
	cgroups     = "/sys/fs/cgroup"
	runDir      = "/run/allotment"
	stateDir    = "/state"
	heartbeatFD = 3
	memoryLimit = 32 << 20 // bytes; the collector works harder near it

	// certificates is who issues the gateway's, once the organisation has a domain or a public address, if the profile names
	// nobody else.
	certificates = "https://acme-v02.api.letsencrypt.org/directory"

	metadata     = "http://169.254.169.254" // of nearly all hosting providers
	metadataTime = 3 * time.Second
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == container.HoldArgument {
		io.Copy(io.Discard, os.Stdin)
		return
	}
	if mine, err := backup.Helper(os.Args[1:], stateDir, runDir); mine {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(50)
	screen := console.New(console.Active())
	code, err := run(screen)
	if err != nil {
		screen.Print("allotment: the supervisor cannot work: %v", err)
		code = 1 // PID 1 starts it again, some times
	}
	screen.Close()
	os.Exit(code)
}

func run(screen *console.Console) (int, error) {
	unix.CloseOnExec(heartbeatFD)
	facts, err := boot.ParseFacts(os.Getenv)
	if err != nil {
		return 0, err
	}
	manifest, err := image.ReadManifest(image.ManifestPath)
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return 0, fmt.Errorf("cannot make %q: %w", runDir, err)
	}
	resolv := runDir + "/modules.resolv.conf"
	if err := os.WriteFile(resolv, []byte(resolver.ResolvConf()), 0o644); err != nil {
		return 0, fmt.Errorf("cannot tell modules their resolver: %w", err)
	}
	if err := protectFromOOM(); err != nil {
		return 0, err
	}
	// The processes of containers become children of this one, so that it is told how they end.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("cannot become the parent of containers: %w", err)
	}
	if err := supervisor.EnterGroup(cgroups); err != nil {
		return 0, err
	}
	log := supervisor.NewLog(screen)
	if err := container.ShareDisks("/sys/block"); err != nil {
		log.Logger().Warn("modules get the disk in no fair shares", "error", err)
	}
	children := reaper.New()
	config := supervisor.Config{
		Manifest: manifest, Slot: facts.Slot, Trial: facts.Trial,
		Run: runDir, State: stateDir, Gateway: programs + "allot-gateway", Resolver: programs + "allot-resolver",
		Portal: programs + "allot-portal",
		Restic: "/usr/bin/restic",
		Listen: ":80", ListenTLS: ":443", ACME: authority(manifest.Gateway.ACME),
		Provider: provider.Machine{Sys: "/sys", Metadata: metadata, Client: &http.Client{Timeout: metadataTime}},
		Container: container.Config{
			Crun: "/usr/bin/crun", Self: programs + "allot-supervisor", Run: runDir, Cgroup: cgroups,
			Resolv: resolv,
		},
		OpenState: func(ctx context.Context) (supervisor.State, error) {
			unix.Unmount(stateDir, unix.MNT_DETACH) // what an earlier supervisor of this boot has left
			return state.Open(ctx, state.Config{
				Disk: facts.Disk, Root: stateDir, Layers: manifest.Layers, Seed: manifest.Seed,
				Reaper: children, Log: log.Logger(),
			})
		},
		Serve: func(ctx context.Context, box *supervisor.Box) {
			if err := serve(ctx, box, log); err != nil {
				log.Logger().Error("nobody answers the api", "error", err)
			}
		},
		Heartbeat: os.NewFile(heartbeatFD, "heartbeat"), Console: screen, Log: log,
	}
	addUpdates(&config, facts)
	s, err := supervisor.New(config, children)
	if err != nil {
		return 0, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return s.Run(ctx), nil
}

// authority is who issues the gateway's certificates.
func authority(a image.ACME) gateway.ACME {
	return gateway.ACME{Directory: cmp.Or(a.Directory, certificates), Email: a.Email, Root: a.Root}
}

// serve answers the api until ctx ends.
func serve(ctx context.Context, box *supervisor.Box, log *supervisor.Log) error {
	c := apiserver.Config{Box: box, Access: map[uint32]api.Access{plan.PortalID: api.Officer},
		Routes: map[uint32][]string{plan.UpdaterID: {"POST /v1/update/restart", "POST /v1/update/tidy"}}}
	if box.Info().Developer {
		c.Developer = box
	}
	server, err := apiserver.New(c)
	if err != nil {
		return err
	}
	l, err := apiserver.ListenUnixFor(runDir+"/portal/api.sock", plan.PortalID)
	if err == nil {
		go server.Serve(l)
	} else if !errors.Is(err, fs.ErrNotExist) { // as in an image without a portal
		log.Logger().Error("the portal cannot ask the box", "error", err)
	}
	server.Listen(ctx, runDir+"/api.sock", log.Logger())
	return nil
}

// protectFromOOM makes the kernel take any other process before this one when memory runs out.
func protectFromOOM() error {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-900"), 0); err != nil {
		return fmt.Errorf("cannot protect the supervisor: %w", err)
	}
	return nil
}
