package box

import (
	"context"
	"net/http"
	"slices"

	"allotment/api"
	"allotment/portal/web"
)

// taskView is a repair or a journey in the visitor's words.
type taskView struct {
	api.Task
	Of string // title of the module
}

// healthView is what the page of health shows.
type healthView struct {
	Lamps    []lamp
	Repairs  []taskView
	Journeys []taskView
	Events   []api.Event // the newest first
}

// mostEvents are shown.
const mostEvents = 30

func (p *Pages) health(r *web.Request) error {
	h, err := r.Box.Health(ctx(r))
	if err != nil {
		return problem(err)
	}
	all, err := r.Box.Tasks(ctx(r))
	if err != nil {
		return problem(err)
	}
	n, err := r.Box.Network(ctx(r))
	if err != nil {
		return problem(err)
	}
	var v healthView
	for _, x := range h.Lamps {
		l := lampOf(r, x)
		if x.Module != "" {
			l.Path = root + "modules/" + x.Module
			if x.Level == api.Good {
				l.Text, l.Says = r.T("box.state.ready"), ""
			}
		}
		v.Lamps = append(v.Lamps, l)
	}
	v.Lamps = append(v.Lamps, certsOf(r, n).lamps(r)...)
	for _, t := range all {
		x := taskOf(r, t)
		switch t.Kind {
		case api.Repair:
			v.Repairs = append(v.Repairs, x)
		case api.Journey:
			v.Journeys = append(v.Journeys, x)
		}
	}
	for e, err := range r.Box.Events(ctx(r), api.EventQuery{}) {
		if err != nil {
			return problem(err)
		}
		if v.Events = append(v.Events, e); len(v.Events) > mostEvents {
			v.Events = v.Events[1:]
		}
	}
	slices.Reverse(v.Events)
	return r.Render("health", v)
}

func taskOf(r *web.Request, t api.Task) taskView {
	key := "task." + t.Module + "." + t.Name
	t.Title, t.Help = r.Or(key+".title", t.Title), r.Or(key+".help", t.Help)
	return taskView{t, r.ModuleTitle(t.Module, t.Module)}
}

func (p *Pages) runTask(r *web.Request) error {
	all, err := r.Box.Tasks(ctx(r))
	if err != nil {
		return problem(err)
	}
	kind := r.Form.Choice("kind", api.Repair, api.Journey)
	i := slices.IndexFunc(all, func(t api.Task) bool {
		return t.Kind == kind && t.Module == r.Form.Value("module") && t.Name == r.Form.Value("name")
	})
	if i < 0 {
		return web.Fail(http.StatusNotFound, "problem.missing")
	}
	t := taskOf(r, all[i])
	about := About{Key: "task " + t.Module, Title: t.Of + ": " + t.Title, Back: root + "health"}
	r.Record("box.task", t.Module, map[string]string{"task": t.Name})
	j, begun := p.jobs.Start(about, r.Person.Name, func(ctx context.Context, tell func(api.Progress)) error {
		for progress, err := range p.deps.Box.RunTask(ctx, all[i]) {
			if err != nil {
				return err
			}
			tell(progress)
		}
		return nil
	})
	if !begun {
		return web.Fail(http.StatusConflict, "box.problem.busy")
	}
	return r.Redirect(root + "jobs/" + j.ID)
}
