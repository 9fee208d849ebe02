// Package container runs each service of a module as one OCI container by crun. The container's root is the module's
// EROFS layers, mounted straight from the layer store, its ids are mapped to the module's range, and it has no more
// rights than its module declares. Containers do not depend on the process that started them: the next supervisor finds
// them again.
package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/init/plan"
	"allotment/init/reaper"
	"allotment/init/servicelog"
)

// HoldArgument makes the supervisor's program do nothing but hold a user namespace until its standard input ends.
const HoldArgument = "hold-user-namespace"

// Config says where things lie.
type Config struct {
	Crun   string // program
	Self   string // the supervisor's program, which knows HoldArgument
	Run    string // folder for what lives until the next boot, such as /run/allotment
	Cgroup string // mount point of the cgroup v2 hierarchy
	Resolv string // file for /etc/resolv.conf
}

// Runtime makes, runs and ends containers.
type Runtime struct {
	config Config
	reaper *reaper.Reaper
}

// New returns a runtime; the reaper starts its processes.
func New(c Config, r *reaper.Reaper) *Runtime { return &Runtime{config: c, reaper: r} }

func (r *Runtime) moduleDir(m *plan.Module) string {
	return filepath.Join(r.config.Run, "modules", m.Name)
}

func (r *Runtime) serviceDir(s *plan.Service) string {
	return filepath.Join(r.config.Run, "services", s.ID)
}

func (r *Runtime) cgroupDir(s *plan.Service) string { return filepath.Join(r.config.Cgroup, s.Cgroup) }

// Sources are where a module's parts lie in the state partition.
type Sources struct {
	Layers  []string          // files, lowest first
	Volumes map[string]string // folders by the volumes' names
}

// Prepare mounts what the module's containers are made of and sets its limits. What an earlier supervisor prepared is
// kept, but for the tasks that it began.
func (r *Runtime) Prepare(m *plan.Module, from Sources) error {
	if err := limitModule(r.config.Cgroup, m); err != nil {
		return fmt.Errorf("cannot prepare module %q: %w", m.Name, err)
	}
	if err := r.endTasks(m); err != nil {
		return fmt.Errorf("cannot prepare module %q: %w", m.Name, err)
	}
	if attached(filepath.Join(r.moduleDir(m), "root")) {
		return nil
	}
	userns, err := r.userNamespace(m.FirstID)
	if err != nil {
		return fmt.Errorf("cannot prepare module %q: %w", m.Name, err)
	}
	defer userns.Close()
	if err := r.mountVolumes(m, from.Volumes, userns); err != nil {
		return fmt.Errorf("cannot prepare module %q: %w", m.Name, err)
	}
	if err := r.mountRoot(m, from.Layers, userns); err != nil {
		return fmt.Errorf("cannot prepare module %q: %w", m.Name, err)
	}
	return r.writeHosts(m)
}

// userNamespace makes a user namespace with the ids from first. It lives as long as the returned file or a mount that
// was mapped by it; the process that it needs to be born is ended at once.
func (r *Runtime) userNamespace(first uint32) (*os.File, error) {
	hold, release, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer release.Close()
	defer hold.Close()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(first), Size: plan.IDs}}
	p, err := r.reaper.Start(reaper.Spec{
		Path: r.config.Self, Args: []string{HoldArgument}, Stdin: hold,
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make a user namespace: %w", err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", p.PID()))
	release.Close()
	<-p.Done()
	if err != nil {
		return nil, fmt.Errorf("cannot make a user namespace: %w", err)
	}
	return f, nil
}

func (r *Runtime) mountVolumes(m *plan.Module, folders map[string]string, userns *os.File) error {
	for name, folder := range folders {
		at := filepath.Join(r.moduleDir(m), "volumes", name)
		if attached(at) {
			continue
		}
		if err := mountVolume(folder, at, userns); err != nil {
			return err
		}
	}
	return nil
}

func (r *Runtime) mountRoot(m *plan.Module, layers []string, userns *os.File) error {
	dir := r.moduleDir(m)
	var lowers []string
	for i, file := range layers {
		at := filepath.Join(dir, "layers", strconv.Itoa(i))
		if !attached(at) {
			if err := mountLayer(file, at, userns); err != nil {
				return err
			}
		}
		lowers = append(lowers, at)
	}
	points, err := missing(lowers, mountPoints(m))
	if err != nil {
		return err
	}
	if len(points) > 0 {
		skeleton := filepath.Join(dir, "skeleton")
		if err := copyFolderOnce(skeleton, lowers, int(m.FirstID)); err != nil {
			return err
		}
		for _, p := range points {
			if err := addPoint(skeleton, lowers, p, int(m.FirstID)); err != nil {
				return fmt.Errorf("cannot make mount point %q: %w", p, err)
			}
		}
		lowers = append(lowers, skeleton)
	}
	root := filepath.Join(dir, "root")
	if len(lowers) > 1 {
		return mountOverlay(lowers, root)
	}
	return mountLayer(layers[0], root, userns)
}

// copyFolderOnce makes the skeleton's own folder, the root of the tree.
func copyFolderOnce(skeleton string, lowers []string, owner int) error {
	if _, err := os.Lstat(skeleton); err == nil {
		return nil
	}
	return copyFolder(skeleton, lowers, ".", owner)
}

// mountPoints are the places where newMounts mounts, those that are folders with a slash at the end.
func mountPoints(m *plan.Module) []string {
	points := []string{"/proc/", "/dev/", "/etc/resolv.conf", "/etc/hosts"}
	if len(m.Templates) > 0 {
		points = append(points, configAt+"/")
	}
	if len(m.Secrets) > 0 {
		points = append(points, secretsAt+"/")
	}
	for _, dir := range tmpfs(m) {
		points = append(points, dir+"/")
	}
	for _, v := range m.Volumes {
		points = append(points, v.Path+"/")
	}
	return points
}

// tmpfs lists the folders in memory of the module's services and of all its tasks.
func tmpfs(m *plan.Module) []string {
	var all []string
	for _, s := range m.Services {
		all = append(all, s.Tmpfs...)
	}
	tasks := []*image.Task{}
	d := m.Declared
	for i := range d.Migrations {
		tasks = append(tasks, &d.Migrations[i].Task)
	}
	for i := range d.Repairs {
		tasks = append(tasks, &d.Repairs[i].Task)
	}
	for _, j := range d.Journeys {
		for _, step := range j.Steps {
			tasks = append(tasks, step.Task)
		}
	}
	if b := d.Backup; b != nil {
		tasks = append(tasks, b.Quiesce, b.Resume, b.Dump, b.Verify, b.RestoreTest, b.Export)
		if b.Restore != nil {
			tasks = append(tasks, &b.Restore.Task)
		}
	}
	for _, t := range tasks {
		if t != nil {
			all = append(all, t.Tmpfs...)
		}
	}
	return all
}

func (r *Runtime) writeHosts(m *plan.Module) error {
	text := fmt.Sprintf("127.0.0.1 localhost\n::1 localhost\n%s %s.internal %s\n%s %s.internal %s\n",
		m.IPv4.Addr(), m.Name, m.Name, m.IPv6.Addr(), m.Name, m.Name)
	return os.WriteFile(filepath.Join(r.moduleDir(m), "hosts"), []byte(text), 0o644)
}

// Start starts the service's container in the network namespace at the path network, with output as its standard output
// and error.
func (r *Runtime) Start(ctx context.Context, s *plan.Service, network string, output *os.File) (*reaper.Process, error) {
	dir := r.serviceDir(s)
	r.Remove(ctx, s) // what a container that ended before has left
	if err := r.writeBundle(s, network); err != nil {
		return nil, err
	}
	messages := filepath.Join(dir, "crun.log")
	os.Remove(messages)
	p, err := r.reaper.Start(reaper.Spec{
		Path: r.config.Crun,
		Args: append(r.crunArgs(messages),
			"run", "--detach", "--bundle", dir, "--pid-file", filepath.Join(dir, "pid"), s.ID),
		Env: []string{defaultPath}, Stdout: output, Stderr: output,
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Signal(unix.SIGKILL)
		r.Kill(s)
		return nil, fmt.Errorf("cannot start %q in time: %w", s.ID, ctx.Err())
	}
	if err := p.Err(); err != nil {
		return nil, fmt.Errorf("cannot start %q: %w: %s", s.ID, err, lastMessage(messages))
	}
	return r.attach(s)
}

// Find returns the service's container if an earlier supervisor started it and it still runs, nil if not.
func (r *Runtime) Find(s *plan.Service) *reaper.Process {
	p, err := r.attach(s)
	if err != nil || ended(p) {
		return nil
	}
	return p
}

// attach watches the process that the pid file names, if it is still the container's first one.
func (r *Runtime) attach(s *plan.Service) (*reaper.Process, error) {
	b, err := os.ReadFile(filepath.Join(r.serviceDir(s), "pid"))
	if err != nil {
		return nil, fmt.Errorf("cannot find container %q: %w", s.ID, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("cannot find container %q: %w", s.ID, err)
	}
	p, err := r.reaper.Attach(pid)
	if err != nil {
		return nil, fmt.Errorf("cannot find container %q: %w", s.ID, err)
	}
	// After Attach the number cannot change its meaning any more, so now is the time to ask whose it is. A child that ended
	// so soon cannot be asked; it is told from any other one by the reaper, which remembers only the latest ends.
	if !r.isFirst(s, pid) && !(p.Child() && ended(p)) {
		return nil, fmt.Errorf("cannot find container %q: process %d ended or is another one", s.ID, pid)
	}
	return p, nil
}

func ended(p *reaper.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// isFirst tells whether the process is number 1 in a namespace of its own in the service's cgroup.
func (r *Runtime) isFirst(s *plan.Service, pid int) bool {
	group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || strings.TrimSpace(string(group)) != "0::"+s.Cgroup {
		return false
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(numbers)
			return len(f) > 1 && f[len(f)-1] == "1"
		}
	}
	return false
}

// Dismiss unmounts what Prepare mounted; the module's containers must have ended.
func (r *Runtime) Dismiss(m *plan.Module) error {
	dir := r.moduleDir(m)
	mounts := []string{filepath.Join(dir, "root")}
	for _, parts := range []string{"layers", "volumes"} {
		found, err := filepath.Glob(filepath.Join(dir, parts, "*"))
		if err != nil {
			return err
		}
		mounts = append(mounts, found...)
	}
	var errs []error
	for _, at := range mounts {
		if !attached(at) {
			continue
		}
		if err := unix.Unmount(at, unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("cannot unmount %q: %w", at, err))
		}
	}
	return errors.Join(errs...)
}

// Kill ends every process of the service at once.
func (r *Runtime) Kill(s *plan.Service) error {
	err := writeControl(r.cgroupDir(s), "cgroup.kill", "1")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// removeTimeout bounds what crun may take to remove a container, or a service would never be started again.
const removeTimeout = 30 * time.Second

// Remove takes away what is left of a container that has ended, and tells in words for people if that was for want of
// memory; "" if not.
func (r *Runtime) Remove(ctx context.Context, s *plan.Service) (outOfMemory string) {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	outOfMemory = r.outOfMemory(s)
	os.Remove(filepath.Join(r.serviceDir(s), "pid"))
	if _, err := os.Lstat(filepath.Join(r.config.Run, "crun", s.ID)); err == nil {
		r.reaper.Run(ctx, reaper.Spec{
			Path: r.config.Crun, Args: append(r.crunArgs("/dev/null"), "delete", "--force", s.ID),
			Env: []string{defaultPath},
		})
	}
	removeCgroup(ctx, r.cgroupDir(s)) // which is there still if crun was killed before it noted the container
	return outOfMemory
}

// Pipe opens the pipe that carries the service's output; see servicelog.Pipe.
func (r *Runtime) Pipe(s *plan.Service) (service, reader *os.File, err error) {
	if err := os.MkdirAll(r.serviceDir(s), 0o755); err != nil {
		return nil, nil, err
	}
	owner := s.Module.FirstID
	return servicelog.Pipe(filepath.Join(r.serviceDir(s), "output"), int(owner+s.UID), int(owner+s.GID))
}

func (r *Runtime) crunArgs(log string) []string {
	return []string{
		"--root", filepath.Join(r.config.Run, "crun"), "--cgroup-manager", "cgroupfs", "--log", log, "--log-format", "json",
	}
}

func (r *Runtime) writeBundle(s *plan.Service, network string) error {
	module := r.moduleDir(s.Module)
	at := places{
		root: filepath.Join(module, "root"), hosts: filepath.Join(module, "hosts"), resolv: r.config.Resolv,
		config: filepath.Join(r.config.Run, "config", s.Module.Name), secrets: filepath.Join(r.config.Run, "secrets", s.Module.Name),
		network: network, volumes: map[string]string{},
	}
	for _, v := range s.Module.Volumes {
		at.volumes[v.Name] = filepath.Join(module, "volumes", v.Name)
	}
	spec, err := newSpec(s, at)
	if err != nil {
		return err
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.serviceDir(s), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.serviceDir(s), "config.json"), b, 0o644)
}

// lastMessage is the last thing that crun wrote to its log; each line is a JSON object.
func lastMessage(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "crun left no message"
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	var m struct {
		Msg string `json:"msg"`
	}
	if json.Unmarshal([]byte(lines[len(lines)-1]), &m) != nil || m.Msg == "" {
		return lines[len(lines)-1]
	}
	return m.Msg
}
