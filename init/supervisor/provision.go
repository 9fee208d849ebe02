package supervisor

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"net"
	"strconv"

	"allotment/api"
	"allotment/init/plan"
	"allotment/portal/directory"
)

// portalSecret is the directory's secret by which the portal, its only writer, logs in.
const portalSecret = "portal"

// Provision implements apiserver.Box.
func (b *Box) Provision(ctx context.Context, p api.Provision) iter.Seq2[api.Account, error] {
	return func(yield func(api.Account, error) bool) {
		d, err := b.supervisor.openDirectory()
		if err != nil {
			yield(api.Account{}, err)
			return
		}
		defer d.Close()
		group := cmp.Or(p.Group, "members")
		err = d.AddGroup(ctx, directory.Group{Name: group})
		if err == nil || errors.Is(err, directory.ErrExists) {
			err = b.supervisor.letUse(ctx, d)
		}
		if err != nil {
			yield(api.Account{}, err)
			return
		}
		for i := range p.Users {
			if ctx.Err() != nil {
				return
			}
			a := api.Account{Name: fmt.Sprintf("user%02d", i+1), Password: rand.Text()}
			err := account(ctx, d, group, a)
			if !yield(a, err) || err != nil {
				return
			}
		}
	}
}

// letUse declares the modules' permissions, which the portal may not have come to yet.
func (s *Supervisor) letUse(ctx context.Context, d *directory.Directory) error {
	_, p, err := s.filesAndPlan()
	if err != nil {
		return err
	}
	for _, m := range p.Modules {
		for _, x := range m.Declared.Permissions {
			if err := d.DeclarePermission(ctx, m.Name, x.Name, x.Groups...); err != nil && !errors.Is(err, directory.ErrExists) {
				return err
			}
		}
	}
	return nil
}

// account makes one account, or gives it a new password, and tries it.
func account(ctx context.Context, d *directory.Directory, group string, a api.Account) error {
	if err := d.AddPerson(ctx, directory.Person{Name: a.Name}); err != nil && !errors.Is(err, directory.ErrExists) {
		return err
	}
	if err := d.SetPassword(ctx, a.Name, a.Password); err != nil {
		return err
	}
	if err := d.AddMember(ctx, group, a.Name); err != nil && !errors.Is(err, directory.ErrExists) {
		return err
	}
	return d.Authenticate(ctx, a.Name, a.Password)
}

// openDirectory is the directory with the portal's rights.
func (s *Supervisor) openDirectory() (*directory.Directory, error) {
	f, p, err := s.filesAndPlan()
	if err != nil {
		return nil, err
	}
	m := p.Module(plan.Directory)
	if m == nil {
		return nil, api.Errorf(api.Conflict, "this box has no directory")
	}
	password, err := f.secret(m, portalSecret, s.wallClock())
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort(m.IPv4.Addr().String(), strconv.Itoa(plan.LDAPPort))
	return directory.Open(address, func() (string, error) { return password, nil }), nil
}
